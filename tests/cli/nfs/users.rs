//! Files of users by their numbers: what the server lets whom do, and who is named where it does not.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use super::server::{Server, ganesha_is_missing};
use super::{disk, ran};
use crate::common::Dir;

const OWNER: u32 = 1000;
const GROUP: u32 = 1001;
const OTHER: u32 = 1002;

#[test]
fn files_are_used_as_the_user_and_the_group_that_are_given() {
    if ganesha_is_missing() {
        return;
    }
    let dir = Dir::new();
    disk(&dir, "a.raw");
    let server = Server::new(&dir);
    let own = |name: &str, mode: u32| {
        let path = dir.path(&format!("exp/{name}"));
        std::fs::copy(dir.path("a.raw"), &path).expect("a copy");
        chown(&path, Some(OWNER), Some(GROUP)).expect("its owner");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("its mode");
    };
    own("user", 0o600);
    own("group", 0o040);
    // One in which the owner alone makes files.
    let place = dir.path("exp/place");
    std::fs::create_dir(&place).expect("a directory");
    chown(&place, Some(OWNER), Some(GROUP)).expect("its owner");
    let root = dir.root().display().to_string();
    for version in [3, 4] {
        let prefix = if version == 3 { root.as_str() } else { "" };
        let url = |name: &str, user: u32, group: u32| {
            format!("nfs://127.0.0.1{prefix}/exp/{name}?uid={user}&gid={group}&version={version}")
        };
        let refused = |line: &str, told: &str| {
            let ran = server.run(&dir, line);
            assert_eq!(ran.code, 1, "{line}: {ran:?}");
            assert!(ran.err.contains(told), "{line}: {ran:?}");
            assert_eq!(ran.err.lines().count(), 1, "{line}: {ran:?}");
        };
        let as_whom =
            |user: u32, group: u32| format!("as user {user} of group {group}: Permission denied");
        ran(
            &server,
            &dir,
            &format!("compare -f raw a.raw {}", url("user", OWNER, OTHER)),
        );
        ran(
            &server,
            &dir,
            &format!("compare -f raw a.raw {}", url("group", OTHER, GROUP)),
        );
        let options = format!(
            "driver=nfs,server.type=inet,server.host=127.0.0.1,path={prefix}/exp/user,user={OWNER},group={OTHER},version={version}"
        );
        ran(&server, &dir, &format!("info --image-opts {options}"));
        let wrong = options.replace(&format!("user={OWNER}"), &format!("user={OTHER}"));
        refused(
            &format!("info --image-opts {wrong}"),
            &format!("Failed to open file 'user' {}", as_whom(OTHER, OTHER)),
        );
        refused(
            &format!("info {}", url("user", OTHER, GROUP)),
            &format!("Failed to open file 'user' {}", as_whom(OTHER, GROUP)),
        );
        // What may be read may not be written for that.
        refused(
            &format!("resize -f raw {} 9M", url("group", OTHER, GROUP)),
            &format!("Failed to open file 'group' {}", as_whom(OTHER, GROUP)),
        );
        let name = format!("place/new{version}");
        refused(
            &format!("create -q -f raw {} 1M", url(&name, OTHER, GROUP)),
            &as_whom(OTHER, GROUP),
        );
        assert!(!dir.path(&format!("exp/{name}")).exists());
        let new = url(&name, OWNER, GROUP);
        ran(
            &server,
            &dir,
            &format!("convert -f raw -O qcow2 a.raw {new}"),
        );
        let made = dir.path(&format!("exp/{name}")).metadata();
        let made = made.expect("what was made");
        assert_eq!((made.uid(), made.gid()), (OWNER, GROUP));
        // It is its owner's alone.
        refused(
            &format!("check {}", url(&name, OTHER, GROUP)),
            &as_whom(OTHER, GROUP),
        );
        ran(&server, &dir, &format!("check {new}"));
    }
}
