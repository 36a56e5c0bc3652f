//! A volume of GlusterFS for the length of a test, in a network of its own: bricks take ports as they come.

use std::ops::Deref;
use std::process::Command;

use crate::apart::Apart;
use crate::common::{Dir, run_in};

/// Whether tests with the server have to be left out.
pub fn gluster_is_missing() -> bool {
    let root = run_in(std::path::Path::new("/"), "id", &["-u"]).out.trim() == "0";
    let library = Command::new("ldconfig").arg("-p").output();
    let library =
        library.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).contains("libgfapi.so.0 "));
    let files = [
        "/usr/sbin/glusterd",
        "/usr/sbin/glusterfs",
        "/usr/sbin/gluster",
        "/usr/bin/nsenter",
        "/dev/fuse",
    ];
    let files = files.iter().all(|file| std::path::Path::new(file).exists());
    if !(root && library && files) {
        eprintln!(
            "LEFT OUT: tests of GlusterFS need root, FUSE, glusterfs-server and libgfapi0 (ci/setup.sh)"
        );
        return true;
    }
    false
}

/// The server takes no brick on 127.0.0.1, for that is no name that others could use.
pub const HOST: &str = "127.0.0.2";

const START: &str = "
ip link set lo up
ip addr add 127.0.0.2/8 dev lo
mount -t tmpfs none /run
mount -t tmpfs none /var/log
mkdir -p /run/gluster /var/log/glusterfs
cd $1
cat > config <<END
volume management
    type mgmt/glusterd
    option working-directory $1/state
    option run-directory $1/state/run
    option transport-type socket
    option transport.socket.listen-port 24007
    option transport.socket.bind-address 127.0.0.2
    option ping-timeout 0
    option base-port 49152
    option max-port 60999
    option rpc-auth-allow-insecure on
end-volume
END
glusterd -N -f $1/config -p $1/pid -l $1/told &
ask() { gluster --mode=script --log-file=$1/asked $2 >>answers 2>&1; }
until [ -S /run/glusterd.socket ] && ask $1 'pool list'; do kill -0 $! || exit; sleep 0.02; done
ask $1 \"volume create v transport tcp 127.0.0.2:$1/brick force\" &&
ask $1 'volume set v server.allow-insecure on' &&
ask $1 'volume start v' &&
glusterfs --volfile-server=127.0.0.2 --volfile-id=v mounted &&
touch started
wait
";

/// A volume of one brick, the directory `brick`, which is mounted by FUSE on `mounted`, where the server alone sees it;
/// ended when it is dropped.
pub struct Server(Apart);

impl Server {
    pub fn new(dir: &Dir) -> Self {
        for name in ["brick", "state", "state/run", "mounted"] {
            std::fs::create_dir_all(dir.path(name)).expect("a directory");
        }
        let told = || {
            ["answers", "told"]
                .map(|name| std::fs::read_to_string(dir.path(name)).unwrap_or_default())
                .join("\n")
        };
        Self(Apart::start(
            dir,
            START,
            || dir.path("started").exists(),
            told,
        ))
    }

    /// Sends a signal to what serves the brick.
    pub fn signal_brick(&self, signal: &str) {
        let brick = self.process(|name| name == "glusterfsd");
        let sent = Command::new("kill")
            .args([signal, &brick.expect("the brick")])
            .status();
        assert!(sent.expect("kill").success());
    }

    /// Has the brick that was killed served again.
    #[track_caller]
    pub fn start_brick_again(&self, dir: &Dir) {
        let socket = self.seen("/run/glusterd.socket".as_ref());
        let socket = format!("--glusterd-sock={}", socket.display());
        let log = format!("--log-file={}", dir.str("asked"));
        let args = [
            "--mode=script",
            &log,
            &socket,
            "volume",
            "start",
            "v",
            "force",
        ];
        let told = self.command(dir, "gluster", &args).output();
        let told = told.expect("the tool of the server");
        assert!(told.status.success(), "{told:?}");
    }
}

impl Deref for Server {
    type Target = Apart;

    fn deref(&self) -> &Apart {
        &self.0
    }
}
