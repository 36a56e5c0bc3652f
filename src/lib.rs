//! Virtual-machine disk images: create, open, read, write, convert, inspect and check them.
//!
//! The crate is built in layers, and imports run one way only:
//! `capi → ops → queue → image → filter → format → storage → net → sys`; everything may use the vocabulary
//! ([`error`], [`size`], [`value`], [`options`], [`location`], [`policy`], [`job`], [`extent`]).
//! Names of files, snapshots and bitmaps are bytes there: [`bstr`] strings.
//!
//! * [`storage`] is the host side: byte stores such as a file, a block device or memory.
//! * [`net`] is below it: streams of bytes to peers.
//! * [`mod@format`] is the guest side: one module per image format.
//! * [`filter`] is between them: nodes over other nodes, without a file of their own.
//! * [`image`] is an open image: a format over its child nodes over a backing chain.
//! * [`queue`] submits requests on an image that complete later.
//! * [`serve`] offers images to clients that speak NBD.
//! * [`ops`] holds one module per operation; [`capi`] is the C ABI over the public Rust API.
//!
//! # Reading
//!
//! ```
//! # fn main() -> platter::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("disk.raw");
//! # std::fs::write(&path, [7; 1024]).unwrap();
//! use platter::{Image, Location, OpenOptions};
//!
//! // The default policy opens no file that the image names and guesses no format for writing.
//! let options = OpenOptions {
//!     format: Some("raw".to_owned()),
//!     ..OpenOptions::default()
//! };
//! let image = Image::open(&Location::from_path(path), &options)?;
//! let mut sector = [0; 512];
//! image.read_at(&mut sector, 512)?;
//! assert_eq!(sector, [7; 512]);
//! # image.close()
//! # }
//! ```
//!
//! # Creating and writing
//!
//! ```
//! # fn main() -> platter::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("disk.qcow2");
//! use platter::ops::create::{CreatePlan, CreateRequest};
//! use platter::{Image, Job, Location, OpenOptions, OpenPolicy, Options};
//!
//! let location = Location::from_path(path);
//! let request = CreateRequest {
//!     location: location.clone(),
//!     format: "qcow2".to_owned(),
//!     size: Some(1 << 30),
//!     options: Options::parse("cluster_size=128k")?,
//!     backing_file: None,
//!     backing_format: None,
//!     backing_unsafe: false,
//!     exclusive: false,
//!     objects: Default::default(),
//!     policy: OpenPolicy::strict(),
//!     storages: None,
//! };
//! let mut job = Job::new();
//! CreatePlan::new(request, &mut job)?.run(&mut job)?;
//!
//! let options = OpenOptions {
//!     format: Some("qcow2".to_owned()),
//!     writable: true,
//!     ..OpenOptions::default()
//! };
//! let image = Image::open(&location, &options)?;
//! image.write_at(b"hello", 4096)?;
//! image.flush()?;
//! assert_eq!(image.format().cluster_size(), Some(128 << 10));
//! # image.close()
//! # }
//! ```
//!
//! # A job that is cancelled from another thread
//!
//! ```
//! # let dir = tempfile::tempdir().unwrap();
//! # let (source, target) = (dir.path().join("disk.raw"), dir.path().join("disk.qcow2"));
//! # std::fs::write(&source, vec![1; 1 << 20]).unwrap();
//! use platter::ops::convert::{ConvertRequest, convert};
//! use platter::{ErrorKind, Job, Location};
//!
//! let mut request = ConvertRequest::new(Location::from_path(source), Location::from_path(&target));
//! request.source.options.format = Some("raw".to_owned());
//! request.target.format = Some("qcow2".to_owned());
//! let mut job = Job::new();
//! let control = job.control().clone();
//! std::thread::spawn(move || control.cancel()).join().unwrap();
//! let error = convert(&request, &mut job).unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::Cancelled);
//! // The unfinished target has been removed.
//! assert!(!target.exists());
//! ```

#[cfg(test)]
mod architecture;
mod archive;
pub mod bytes;
pub mod capi;
pub mod codec;
mod crew;
pub mod crypto;
pub mod driver_names;
pub mod error;
pub mod extent;
pub mod filter;
pub mod format;
pub mod image;
pub mod job;
mod lack;
pub mod location;
pub mod log;
pub mod memory;
pub mod nbd;
pub mod net;
mod newest;
pub mod object;
pub mod ops;
pub mod options;
pub mod policy;
pub mod printable;
pub mod queue;
mod reap;
pub mod secret;
pub mod serve;
pub mod size;
pub mod storage;
mod sync;
#[allow(
    unsafe_code,
    reason = "the one module for system calls that std does not offer"
)]
mod sys;
pub mod throttle;
pub mod trace;
pub mod value;
mod xml;
pub mod zero;

pub use bstr;
pub use error::{Error, ErrorKind, Result};
pub use image::{Image, OpenOptions};
pub use job::Job;
pub use location::Location;
pub use options::Options;
pub use policy::OpenPolicy;
