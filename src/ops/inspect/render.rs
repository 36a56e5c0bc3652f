//! The JSON and the text of `inspect`.

use std::fmt;

use bstr::ByteSlice;

use super::InspectReport;
use crate::error::Result;
use crate::format::Objection;
use crate::format::inspect::{Finding, Reference, Verdict};
use crate::memory;
use crate::ops::render::json::{self, Members};
use crate::printable::{printable, printable_bytes};
use crate::size::human_size;
use crate::value::{Map, Value};

impl InspectReport {
    /// One JSON object with its final newline; the order of keys is fixed.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn json(&self) -> Result<String> {
        json::text(|out| self.write_json(out))
    }

    /// Writes [`InspectReport::json`] without the newline, in pieces.
    ///
    /// # Errors
    /// If the writer fails.
    pub fn write_json<W: fmt::Write + ?Sized>(&self, out: &mut W) -> fmt::Result {
        let mut object = Members::begin(out, 0)?;
        for (key, value) in &self.fields() {
            object.value(key, value)?;
        }
        write_objects(
            &mut object,
            "references",
            &self.references,
            Reference::fields,
        )?;
        write_objects(&mut object, "guards", &self.requirements, Finding::fields)?;
        if let Some((profile, objections)) = &self.profile {
            object.value("profile", &profile.name.into())?;
            write_objects(&mut object, "objections", objections, Objection::fields)?;
        }
        let verdict = if self.passed() { "pass" } else { "fail" };
        object.value("verdict", &verdict.into())?;
        object.end()
    }

    /// What applies to the file as a whole, under the keys of the JSON.
    pub fn fields(&self) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("filename".into(), self.filename.as_bstr().into());
        map.insert("format".into(), self.format.as_str().into());
        map.insert("format-named".into(), self.format_named.into());
        map.insert("file-size".into(), self.file_size.into());
        for (key, number) in [
            ("virtual-size", self.virtual_size),
            ("cluster-size", self.cluster_size),
            ("snapshot-count", self.snapshots),
        ] {
            if let Some(number) = number {
                map.insert(key.into(), number.into());
            }
        }
        map.insert("encrypted".into(), self.encrypted.into());
        map.insert(
            "signatures".into(),
            self.signatures.iter().copied().collect(),
        );
        map
    }

    /// The report for people, one line per requirement. Text from the file cannot control a terminal.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn text(&self) -> Result<String> {
        memory::text(|out| self.write_text(out))
    }

    /// Writes [`InspectReport::text`], in pieces.
    ///
    /// # Errors
    /// If the writer fails.
    pub fn write_text<W: fmt::Write + ?Sized>(&self, out: &mut W) -> fmt::Result {
        let size = |bytes: u64| format!("{} ({bytes} bytes)", human_size(bytes));
        let mut line = |key: &str, value: &str| writeln!(out, "{key}: {value}");
        line("file", &printable_bytes(&self.filename))?;
        let guess = if self.format_named { "" } else { " (guessed)" };
        line("format", &printable(&format!("{}{guess}", self.format)))?;
        line("file size", &size(self.file_size))?;
        if let Some(bytes) = self.virtual_size {
            line("virtual size", &size(bytes))?;
        }
        if let Some(bytes) = self.cluster_size {
            line("cluster size", &size(bytes))?;
        }
        if self.encrypted {
            line("encrypted", "yes")?;
        }
        if let Some(count) = self.snapshots.filter(|count| *count > 0) {
            line("snapshots", &count.to_string())?;
        }
        if !self.signatures.is_empty() {
            line("looks like", &printable(&self.signatures.join(", ")))?;
        }
        if !self.references.is_empty() {
            out.write_str("names:\n")?;
            for reference in &self.references {
                reference.write_text(out)?;
            }
        }
        out.write_str("guards:\n")?;
        for found in &self.requirements {
            writeln!(
                out,
                "    {:<7}  {:<17}  {}",
                shown(found.verdict),
                found.requirement.id(),
                printable(&found.reason)
            )?;
        }
        if let Some((profile, objections)) = &self.profile {
            writeln!(out, "{}:", profile.product)?;
            if objections.is_empty() {
                out.write_str("    takes it as far as can be seen\n")?;
            }
            for objection in objections {
                let reason = printable(&objection.reason);
                writeln!(
                    out,
                    "    refuses: {reason}\n    remedy: {}",
                    objection.remedy
                )?;
            }
        }
        let objections = self.objections().len();
        let bad = self
            .requirements
            .iter()
            .filter(|g| !g.verdict.is_good())
            .count();
        let requirements = count(bad, "guard");
        match (bad, objections) {
            (0, 0) => writeln!(out, "verdict: pass"),
            (_, 0) => writeln!(out, "verdict: FAIL ({requirements})"),
            _ => writeln!(
                out,
                "verdict: FAIL ({requirements}, {})",
                count(objections, "objection")
            ),
        }
    }
}

/// A member that is a list of objects.
fn write_objects<W: fmt::Write + ?Sized, T>(
    object: &mut Members<'_, W>,
    key: &str,
    items: &[T],
    fields: impl Fn(&T) -> Map<String, Value>,
) -> fmt::Result {
    object.with(key, |out, depth| {
        json::write_list(out, items, depth, |out, item, depth| {
            json::write_value(out, &Value::Object(fields(item)), depth)
        })
    })
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// A verdict in the margin: failures stand out.
fn shown(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Fail => "FAIL",
        Verdict::Unknown => "UNKNOWN",
        Verdict::NotApplicable => "-",
    }
}

impl Reference {
    /// The members, under the keys of the JSON.
    pub(crate) fn fields(&self) -> Map<String, Value> {
        let traits = self.traits();
        let mut map = Map::new();
        map.insert("role".into(), self.role.id().into());
        let name = self.shown_name();
        map.insert("name".into(), name.as_bstr().into());
        if std::str::from_utf8(&name).is_err() {
            let hex: String = name.iter().map(|b| format!("{b:02x}")).collect();
            map.insert("name-bytes".into(), hex.into());
        }
        if let Some(format) = &self.format {
            map.insert("format".into(), format.as_bstr().into());
        }
        map.insert("offset".into(), self.offset.into());
        map.insert("plain".into(), traits.is_plain().into());
        map.insert("absolute".into(), traits.absolute.into());
        map.insert("parent".into(), traits.parent.into());
        map.insert("json".into(), traits.json.into());
        if let Some(protocol) = traits.protocol {
            map.insert("protocol".into(), protocol.into());
        }
        map
    }

    fn write_text<W: fmt::Write + ?Sized>(&self, out: &mut W) -> fmt::Result {
        let role = self.role.id().replace('-', " ");
        let format = match &self.format {
            Some(format) => format!(", format {}", printable_bytes(format)),
            None => String::new(),
        };
        writeln!(
            out,
            "    {role}: '{}' at offset {}{format}, {}",
            printable_bytes(&self.shown_name()),
            self.offset,
            self.traits().words()
        )
    }
}

impl Objection {
    /// The members, under the keys of the JSON.
    pub(crate) fn fields(&self) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("reason".into(), self.reason.as_str().into());
        map.insert("remedy".into(), self.remedy.as_str().into());
        map
    }
}

impl Finding {
    /// The members, under the keys of the JSON.
    pub(crate) fn fields(&self) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("id".into(), self.requirement.id().into());
        map.insert("verdict".into(), self.verdict.id().into());
        map.insert("reason".into(), self.reason.as_str().into());
        map
    }
}
