use super::*;
use crate::job::JobControl;
use crate::net::connect;

const FOREVER: Wait<'_> = Wait::forever();

fn talk(listener: &Listener, address: &Address) {
    let near = connect(address, FOREVER).unwrap();
    assert_eq!(near.peer(), address);
    let far = listener.accept(FOREVER).unwrap();
    near.write_all(b"ping", FOREVER).unwrap();
    let mut buf = [0; 4];
    far.read_exact(&mut buf, FOREVER).unwrap();
    far.write_all(&buf, FOREVER).unwrap();
    near.read_exact(&mut buf, FOREVER).unwrap();
    assert_eq!(&buf, b"ping");
}

#[test]
fn both_versions_of_the_internet_protocol() {
    for host in ["127.0.0.1", "::1", "localhost"] {
        let listener = Listener::bind(&Address::inet(host, 0), 5, FOREVER).unwrap();
        for address in listener.addresses().unwrap() {
            assert!(!address.to_string().ends_with(":0"), "{address}");
            talk(&listener, &address);
        }
    }
}

#[test]
fn a_local_socket_goes_away_with_its_listener_and_only_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let address = Address::unix(path.as_os_str().as_bytes());
    let first = Listener::bind(&address, 5, FOREVER).unwrap();
    talk(&first, &address);
    let second = Listener::bind(&address, 5, FOREVER).unwrap();
    drop(first);
    talk(&second, &address);
    drop(second);
    assert!(!path.exists());
    let refused = connect(&address, FOREVER).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "Failed to connect to '{}': No such file or directory",
            path.display()
        )
    );
}

#[test]
fn a_file_that_is_no_socket_is_never_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::write(&path, "precious").unwrap();
    let address = Address::unix(path.as_os_str().as_bytes());
    let refused = Listener::bind(&address, 5, FOREVER).unwrap_err();
    assert_eq!(refused.errno(), libc::EADDRINUSE);
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[test]
fn abstract_names_and_inherited_sockets() {
    let name = format!("platter-net-{}", std::process::id());
    for names in [Names::Abstract, Names::AbstractPadded] {
        let address = Address::Unix {
            path: name.as_str().into(),
            names,
        };
        let listener = Listener::bind(&address, 5, FOREVER).unwrap();
        talk(&listener, &address);
        use std::os::fd::AsRawFd;
        let number = listener.sockets[0].as_raw_fd();
        let again = Listener::bind(&Address::Descriptor(number), 5, FOREVER).unwrap();
        talk(&again, &address);
    }
    let no_socket = tempfile::tempfile().unwrap();
    let number = std::os::fd::AsRawFd::as_raw_fd(&no_socket);
    let refused = connect(&Address::Descriptor(number), FOREVER).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!("File descriptor '{number}' is not a socket")
    );
}

#[test]
fn nobody_there_is_said_with_the_address() {
    let listener = Listener::bind(&Address::inet("127.0.0.1", 0), 5, FOREVER).unwrap();
    let address = listener.addresses().unwrap().remove(0);
    drop(listener);
    let refused = connect(&address, FOREVER).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!("Failed to connect to '{address}': Connection refused")
    );
    let unknown = connect(&Address::inet("no such host", 1), FOREVER).unwrap_err();
    let words = "address resolution failed for no such host:1: ";
    assert!(unknown.to_string().starts_with(words), "{unknown}");
}

#[test]
fn a_wait_for_connections_ends_by_deadline_cancel_and_shutdown() {
    let listener = Listener::bind(&Address::inet("127.0.0.1", 0), 5, FOREVER).unwrap();
    let control = JobControl::default();
    let wait = Wait::new(&control).at_most(Duration::from_millis(5));
    assert_eq!(listener.accept(wait).unwrap_err().errno(), libc::ETIMEDOUT);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| listener.accept(Wait::new(&control)));
        control.cancel();
        let error = waiting.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Cancelled);
    });
    let dir = tempfile::tempdir().unwrap();
    let local = Address::unix(dir.path().join("s").as_os_str().as_bytes());
    let local = Listener::bind(&local, 5, FOREVER).unwrap();
    for listener in [&listener, &local] {
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| listener.accept(FOREVER));
            listener.shutdown();
            let error = waiting.join().unwrap().unwrap_err();
            assert_eq!(error.errno(), libc::EINVAL);
        });
    }
}

#[test]
fn a_full_queue_of_a_local_socket_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let address = Address::unix(dir.path().join("s").as_os_str().as_bytes());
    let listener = Listener::bind(&address, 0, FOREVER).unwrap();
    let control = JobControl::default();
    let wait = || Wait::new(&control).at_most(Duration::from_millis(30));
    let mut waiting = Vec::new();
    let late = loop {
        match connect(&address, wait()) {
            Ok(stream) => waiting.push(stream),
            Err(error) => break error,
        }
        assert!(waiting.len() < 100);
    };
    assert_eq!(late.errno(), libc::ETIMEDOUT);
    listener.accept(FOREVER).unwrap();
    connect(&address, FOREVER).unwrap();
}
