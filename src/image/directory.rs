//! Disks that are directories: the user names the directory, and a file in it stands for the disk.

use crate::format::{ChildSpec, FormatDriver, registry};
use crate::image::node_plan::{Driver, HostName, NodePlan};
use crate::storage::file;

/// The file below a format; where it is a directory, the file in it that the format means, or any format where
/// none is named.
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
    if !path.is_dir() {
        return file;
    }
    let drivers = match over {
        Driver::Format(driver) => std::slice::from_ref(driver),
        Driver::Probed => registry::drivers(),
        Driver::Filter(_) | Driver::Host(_) | Driver::Open(_) => &[],
    };
    let inside = drivers.iter().filter_map(|driver| index(driver));
    let mut inside = inside.map(|name| path.join(name));
    if let Some(inside) = inside.find(|path| path.is_file()) {
        host.name = HostName::Path(inside);
    }
    file
}

/// The name of the file that stands for a disk of the format in its directory.
fn index(driver: &FormatDriver) -> Option<&'static str> {
    let mut specs = driver.children.iter();
    specs
        .find(|spec| spec.name == ChildSpec::FILE.name)?
        .in_directory
}
