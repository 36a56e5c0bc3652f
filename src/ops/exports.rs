//! The exports of a server.

use std::fmt;
use std::io;

use bstr::{BString, ByteSlice};

use crate::error::{Result, ResultExt};
use crate::image::{self, OpenOptions};
use crate::location::Location;
use crate::ops::render::{human, json};
use crate::printable::write_name;
use crate::storage::exports::ExportInfo;
use crate::value::{Map, Value};

/// The exports of a server, in its order.
#[derive(Clone, Debug)]
pub struct ExportsReport {
    /// One per export.
    pub exports: Vec<ExportInfo>,
}

/// Lists the exports of the server at `location`; it does not matter which of them that names. Of the options, only the
/// policy, the objects and the control are used.
///
/// # Errors
/// `Could not list the exports of '…': …`: [`crate::ErrorKind::Unsupported`] if the protocol or the server has no such
/// list, [`crate::ErrorKind::Denied`] if the server does not disclose it, or if the network fails.
pub fn list(location: &Location, options: &OpenOptions) -> Result<ExportsReport> {
    let exports = image::exports(location, options)
        .context(|| format!("Could not list the exports of '{}'", location.display()))?;
    Ok(ExportsReport { exports })
}

impl ExportsReport {
    /// The text that `qemu-nbd --list` prints; an export for which the server gives no details has a line with the
    /// reason.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn text(&self) -> Result<BString> {
        human::text(|out| self.write_text(out))
    }

    /// Writes [`ExportsReport::text`], in pieces.
    ///
    /// # Errors
    /// If the writer fails.
    pub fn write_text<W: io::Write + ?Sized>(&self, out: &mut W) -> io::Result<()> {
        writeln!(out, "exports available: {}", self.exports.len())?;
        let mut exports = self.exports.iter();
        exports.try_for_each(|export| write_export(out, export))
    }

    /// A list with an object for each export.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn json(&self) -> Result<String> {
        json::text(|out| self.write_json(out))
    }

    /// Writes [`ExportsReport::json`] without the newline, in pieces.
    ///
    /// # Errors
    /// If the writer fails.
    pub fn write_json<W: fmt::Write + ?Sized>(&self, out: &mut W) -> fmt::Result {
        json::write_list(out, &self.exports, 0, |out, export, depth| {
            json::write_value(out, &Value::Object(fields(export)), depth)
        })
    }
}

/// The members of an export: `name`, `description`, `error`, `size`, `read-only`, `flags`, `features`, `min-block`,
/// `opt-block`, `max-block`, `transaction-bits`, `contexts`; what is not known is omitted.
pub fn fields(export: &ExportInfo) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut set = |key: &str, value: Value| {
        fields.insert(key.to_owned(), value);
    };
    set("name", export.name.as_bstr().into());
    if !export.description.is_empty() {
        set("description", export.description.as_bstr().into());
    }
    if let Some(refusal) = &export.refusal {
        set("error", refusal.as_str().into());
    }
    if let Some(details) = &export.details {
        set("size", details.size.into());
        set("read-only", details.read_only.into());
        set("flags", details.flags.into());
        let features = details.abilities.iter().map(|name| (*name).into());
        set("features", Value::Array(features.collect()));
        if let Some(blocks) = details.blocks {
            set("min-block", u64::from(blocks.minimum).into());
            set("opt-block", u64::from(blocks.preferred).into());
            set("max-block", u64::from(blocks.maximum).into());
        }
    }
    set("transaction-bits", u64::from(export.length_bits).into());
    let contexts = export.contexts.iter().map(|name| name.as_bstr().into());
    set("contexts", Value::Array(contexts.collect()));
    fields
}

fn write_export<W: io::Write + ?Sized>(out: &mut W, export: &ExportInfo) -> io::Result<()> {
    out.write_all(b" export: '")?;
    write_name(out, &export.name)?;
    out.write_all(b"'\n")?;
    if !export.description.is_empty() {
        out.write_all(b"  description: ")?;
        write_name(out, &export.description)?;
        out.write_all(b"\n")?;
    }
    if let Some(refusal) = &export.refusal {
        writeln!(out, "  error: {refusal}")?;
    }
    if let Some(details) = &export.details {
        writeln!(out, "  size:  {}", details.size)?;
        write!(out, "  flags: {:#x} (", details.flags)?;
        for name in &details.abilities {
            write!(out, " {name}")?;
        }
        out.write_all(b" )\n")?;
        if let Some(blocks) = details.blocks {
            writeln!(out, "  min block: {}", blocks.minimum)?;
            writeln!(out, "  opt block: {}", blocks.preferred)?;
            writeln!(out, "  max block: {}", blocks.maximum)?;
        }
    }
    writeln!(out, "  transaction size: {}-bit", export.length_bits)?;
    if !export.contexts.is_empty() {
        writeln!(out, "  available meta contexts: {}", export.contexts.len())?;
    }
    for context in &export.contexts {
        out.write_all(b"   ")?;
        write_name(out, context)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}
