//! Lists what an image holds, run by run: `cargo run --example allocated -- disk.qcow2`.

use platter::{Image, Location, OpenOptions, OpenPolicy, Result};

fn main() -> Result<()> {
    let Some(name) = std::env::args_os().nth(1) else {
        eprintln!("usage: allocated IMAGE");
        std::process::exit(2);
    };
    let options = OpenOptions {
        // Backing files are followed, as the command-line tools do: only for images that you trust.
        policy: OpenPolicy::permissive(),
        ..OpenOptions::default()
    };
    let image = Image::open(&Location::parse(name)?, &options)?;
    let mut offset = 0;
    while offset < image.len() {
        let status = image.status(offset, image.len() - offset)?;
        let kind = match (status.data, status.zero) {
            (_, true) => "zeroes",
            (true, _) => "data",
            _ => "nothing",
        };
        println!(
            "{offset:#014x} {:#012x} {kind}, layer {}",
            status.len, status.depth
        );
        offset += status.len;
    }
    image.close()
}
