//! Prints a sector of an image in hexadecimal: `cargo run --example read_sector -- disk.qcow2 2048`.

use platter::{Image, Location, OpenOptions, Result};

fn main() -> Result<()> {
    let mut args = std::env::args_os().skip(1);
    let (Some(name), sector) = (args.next(), args.next()) else {
        eprintln!("usage: read_sector IMAGE [SECTOR]");
        std::process::exit(2);
    };
    let sector: u64 = sector
        .and_then(|text| text.to_str()?.parse().ok())
        .unwrap_or(0);

    // The default policy opens no file that the image names: a backing file would be refused.
    let image = Image::open(&Location::parse(name)?, &OpenOptions::default())?;
    let mut bytes = [0; 512];
    image.read_at(&mut bytes, sector * 512)?;
    for (row, chunk) in bytes.chunks(16).enumerate() {
        let hex: Vec<String> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        println!("{:08x}  {}", sector * 512 + row as u64 * 16, hex.join(" "));
    }
    image.close()
}
