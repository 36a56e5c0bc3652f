//! Converts any image to qcow2 and shows how far it is: `cargo run --example convert -- in.raw out.qcow2`.

use std::io::Write;

use platter::job::Verdict;
use platter::ops::convert::{ConvertRequest, convert};
use platter::{Job, Location, Result};

fn main() -> Result<()> {
    let mut args = std::env::args_os().skip(1);
    let (Some(source), Some(target)) = (args.next(), args.next()) else {
        eprintln!("usage: convert SOURCE TARGET");
        std::process::exit(2);
    };
    let mut request = ConvertRequest::new(Location::parse(source)?, Location::for_target(target));
    request.target.format = Some("qcow2".to_owned());

    let mut job = Job::new().on_progress(Box::new(|progress| {
        let percent = progress.done as f64 * 100.0 / progress.total.max(1) as f64;
        print!("\r{percent:5.1} %");
        let _ = std::io::stdout().flush();
        Verdict::Continue
    }));
    // `job.control()` can be given to another thread, which may cancel, pause or slow the job down.
    let report = convert(&request, &mut job)?;
    println!(
        "\n{} guest bytes, {} of them data",
        report.virtual_size, report.data_bytes
    );
    Ok(())
}
