//! The contents of a plain disk that is an archive, or the like: each item with the name that opens it.

use std::ops::ControlFlow;

use super::ContentInfo;
use crate::error::{ErrorKind, Result};
use crate::filter::registry;
use crate::format::ChildSpec;
use crate::image::{Image, Node};
use crate::job::JobControl;
use crate::location::json_name;
use crate::value::{Map, Value};

/// Maximum number of items listed.
const MAX_LISTED: usize = 1000;

/// The contents of the image; none if it is not a plain disk. If it is damaged, everything before the damage.
///
/// # Errors
/// If reading fails.
pub(super) fn contents(image: &Image, control: &JobControl) -> Result<Vec<ContentInfo>> {
    let mut found = Vec::new();
    let file = image.children().first().map(|file| file.node());
    let plain = file.filter(|_| image.driver().is_transparent);
    let Some(file) = plain.filter(|file| file.image().is_none() && file.filter().is_none()) else {
        return Ok(found);
    };
    for driver in registry::drivers() {
        let Some(visit) = driver.contents else {
            continue;
        };
        let visited = visit(&**file.storage(), control, &mut |content| {
            if found.len() == MAX_LISTED {
                return ControlFlow::Break(());
            }
            found.push(ContentInfo {
                filename: json_name(&tree(driver.name, content.option, &content.name, file)),
                name: content.name,
                len: content.len,
            });
            ControlFlow::Continue(())
        });
        match visited {
            Err(error) if error.kind() == ErrorKind::Corrupt => {}
            visited => visited?,
        }
    }
    Ok(found)
}

fn tree(driver: &str, option: &str, name: &[u8], file: &Node) -> Map<String, Value> {
    Map::from_iter([
        ("driver".to_owned(), driver.into()),
        (option.to_owned(), Value::String(name.into())),
        (
            ChildSpec::FILE.name.to_owned(),
            Value::Object(file.tree().clone()),
        ),
    ])
}
