//! Disks stored in directories: the user, or an overlay, names the directory, and a file in it represents the disk.

use std::path::Path;

use crate::format::{ChildSpec, FormatDriver, registry};
use crate::image::node_plan::{Driver, HostName, NodePlan};
use crate::storage::file;

/// The file below a format; if it is a directory, the file in it that represents a disk of that format, or of any
/// format if none is named.
pub(super) fn entered(mut file: NodePlan, over: &Driver) -> NodePlan {
    let Driver::Host(host) = &mut file.driver else {
        return file;
    };
    let is_path = host
        .protocol
        .as_deref()
        .is_none_or(|name| name == file::FILE.name);
    let Some(path) = host.name.path().filter(|_| is_path) else {
        return file;
    };
    let drivers = match over {
        Driver::Format(driver) => std::slice::from_ref(driver),
        Driver::Probed => registry::drivers(),
        Driver::Filter(_) | Driver::Host(_) | Driver::Open(_) => &[],
    };
    if let Some(inside) = file_for(&path, drivers) {
        host.name = HostName::Path(path.join(inside));
    }
    file
}

/// The file that represents a disk of the format in a directory named by an image; of any format if none is recorded.
pub(super) fn named_inside(path: &Path, format: Option<&str>) -> Option<&'static str> {
    match format {
        None => file_for(path, registry::drivers()),
        Some(name) => file_for(path, &[registry::by_name(name)?]),
    }
}

/// The file in a directory that represents a disk of one of the formats; None if it is not such a directory.
fn file_for(path: &Path, drivers: &[&'static FormatDriver]) -> Option<&'static str> {
    if !path.is_dir() {
        return None;
    }
    let mut inside = drivers.iter().filter_map(|driver| index(driver));
    inside.find(|name| path.join(name).is_file())
}

/// The name of the file that represents a disk of the format in its directory.
fn index(driver: &FormatDriver) -> Option<&'static str> {
    let mut specs = driver.children.iter();
    specs
        .find(|spec| spec.name == ChildSpec::FILE.name)?
        .in_directory
}
