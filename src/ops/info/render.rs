//! The JSON and the text of `info`.

use std::fmt;
use std::io::{self, Write};

use bstr::BString;

use super::{ContentInfo, InfoReport, LayerInfo};
use crate::error::Result;
use crate::format::SnapshotInfo;
use crate::ops::render::json::Members;
use crate::ops::render::{human, json};
use crate::printable::{printable_bytes, write_name};
use crate::size::human_size;
use crate::value::{Map, Value, json_string};

impl InfoReport {
    /// The JSON that `qemu-img info --output=json` prints, with its final newline.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn json(&self) -> Result<String> {
        json::text(|out| self.write_json(out))
    }

    /// Writes [`InfoReport::json`] without the newline, in pieces.
    ///
    /// # Errors
    /// If the writer fails.
    pub fn write_json<W: fmt::Write + ?Sized>(&self, out: &mut W) -> fmt::Result {
        match self.layers.first() {
            _ if self.chain => json::write_list(out, &self.layers, 0, |out, layer, depth| {
                layer.write_json(out, depth)
            }),
            Some(layer) => layer.write_json(out, 0),
            None => json::write_value(out, &Value::Null, 0),
        }
    }

    /// The text that `qemu-img info` prints.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn text(&self) -> Result<BString> {
        human::text(|out| self.write_text(out))
    }

    /// Writes [`InfoReport::text`], in pieces.
    ///
    /// # Errors
    /// If the writer fails.
    pub fn write_text<W: Write + ?Sized>(&self, out: &mut W) -> io::Result<()> {
        for (i, layer) in self.layers.iter().enumerate() {
            if i > 0 {
                out.write_all(b"\n")?;
            }
            layer.write_text(out, "/", 0)?;
        }
        Ok(())
    }
}

impl LayerInfo {
    /// The JSON object, keys in QEMU's order.
    fn write_json<W: fmt::Write + ?Sized>(&self, out: &mut W, depth: usize) -> fmt::Result {
        let mut object = Members::begin(out, depth)?;
        object.with("children", |out, depth| {
            json::write_list(out, &self.children, depth, |out, (name, child), depth| {
                let mut object = Members::begin(out, depth)?;
                object.value("name", &Value::from(name.as_str()))?;
                object.with("info", |out, depth| child.write_json(out, depth))?;
                object.end()
            })
        })?;
        text(
            &mut object,
            "backing-filename-format",
            self.backing_format.as_ref(),
        )?;
        if !self.snapshots.is_empty() {
            object.with("snapshots", |out, depth| {
                write_snapshots(out, &self.snapshots, depth)
            })?;
        }
        object.value("virtual-size", &self.virtual_size.into())?;
        text(&mut object, "filename", Some(&self.filename))?;
        if let Some(size) = self.cluster_size {
            object.value("cluster-size", &size.into())?;
        }
        object.value("format", &Value::from(self.format.as_str()))?;
        if let Some(size) = self.actual_size {
            object.value("actual-size", &size.into())?;
        }
        if let Some((data, kind)) = self.specific.as_ref().zip(self.specific_type) {
            object.with("format-specific", |out, depth| {
                let mut object = Members::begin(out, depth)?;
                object.value("type", &kind.into())?;
                object.value("data", data)?;
                object.end()
            })?;
        }
        if self.encrypted {
            object.value("encrypted", &Value::Bool(true))?;
        }
        text(
            &mut object,
            "full-backing-filename",
            self.full_backing_filename.as_ref(),
        )?;
        text(
            &mut object,
            "backing-filename",
            self.backing_filename.as_ref(),
        )?;
        if let Some(dirty) = self.dirty {
            object.value("dirty-flag", &Value::Bool(dirty))?;
        }
        if !self.contents.is_empty() {
            object.with("contents", |out, depth| {
                json::write_list(out, &self.contents, depth, |out, content, depth| {
                    json::write_value(out, &content.value(), depth)
                })
            })?;
        }
        object.end()
    }

    /// The lines of one node at `depth`; `path` is its position in the tree of nodes, ending in a slash.
    fn write_text<W: Write + ?Sized>(
        &self,
        out: &mut W,
        path: &str,
        depth: usize,
    ) -> io::Result<()> {
        let indent = "    ".repeat(depth);
        let line = |out: &mut W, key: &str, value: &[u8]| {
            write!(out, "{indent}{key}: ")?;
            write_name(out, value)?;
            out.write_all(b"\n")
        };
        // A child without children is a file or another leaf of the tree.
        let protocol = depth > 0 && self.children.is_empty();
        let [name, driver, length] = if protocol {
            ["filename", "protocol type", "file length"]
        } else {
            ["image", "file format", "virtual size"]
        };
        line(out, name, &self.filename)?;
        line(out, driver, self.format.as_bytes())?;
        let size = format!(
            "{} ({} bytes)",
            human_size(self.virtual_size),
            self.virtual_size
        );
        line(out, length, size.as_bytes())?;
        let disk = self
            .actual_size
            .map_or_else(|| "unavailable".to_owned(), human_size);
        line(out, "disk size", disk.as_bytes())?;
        if self.encrypted {
            line(out, "encrypted", b"yes")?;
        }
        if let Some(size) = self.cluster_size {
            line(out, "cluster_size", size.to_string().as_bytes())?;
        }
        if self.dirty == Some(true) {
            line(out, "cleanly shut down", b"no")?;
        }
        if let Some(backing) = &self.backing_filename {
            let mut shown = backing.clone();
            match &self.full_backing_filename {
                Some(full) if full != backing => {
                    shown.extend_from_slice(b" (actual path: ");
                    shown.extend_from_slice(full);
                    shown.push(b')');
                }
                Some(_) => {}
                None => shown.extend_from_slice(b" (cannot determine actual path)"),
            }
            line(out, "backing file", &shown)?;
            if let Some(format) = &self.backing_format {
                line(out, "backing file format", format)?;
            }
        }
        if !self.snapshots.is_empty() {
            human::write_snapshots(out, &indent, &self.snapshots)?;
        }
        if let Some(specific) = &self.specific
            && human::has_members(specific)
        {
            writeln!(out, "{indent}Format specific information:")?;
            human::write_tree(out, specific, depth + 1)?;
        }
        if !self.contents.is_empty() {
            writeln!(out, "{indent}Contents:")?;
        }
        for content in &self.contents {
            let size = format!("{} ({} bytes)", human_size(content.len), content.len);
            let name = printable_bytes(&content.name);
            writeln!(out, "{indent}    {name}: {size}")?;
        }
        for (name, child) in &self.children {
            writeln!(out, "{indent}Child node '{path}{name}':")?;
            child.write_text(out, &format!("{path}{name}/"), depth + 1)?;
        }
        Ok(())
    }
}

/// Writes a member if it is present.
fn text<W: fmt::Write + ?Sized>(
    object: &mut Members<'_, W>,
    key: &str,
    text: Option<&BString>,
) -> fmt::Result {
    text.map_or(Ok(()), |text| {
        object.with(key, |out, _| json_string(out, text))
    })
}

/// Writes the list of snapshots as it appears in `info --output=json`.
///
/// # Errors
/// If the writer fails.
pub(in crate::ops) fn write_snapshots<W: fmt::Write + ?Sized>(
    out: &mut W,
    snapshots: &[SnapshotInfo],
    depth: usize,
) -> fmt::Result {
    const NANO: u64 = 1_000_000_000;
    json::write_list(out, snapshots, depth, |out, snapshot, depth| {
        let mut object = Members::begin(out, depth)?;
        if let Some(icount) = snapshot.icount {
            object.value("icount", &icount.into())?;
        }
        object.value("vm-clock-nsec", &(snapshot.vm_clock_nsec % NANO).into())?;
        text(&mut object, "name", Some(&snapshot.name))?;
        object.value("date-sec", &snapshot.date_sec.into())?;
        object.value("date-nsec", &snapshot.date_nsec.into())?;
        object.value("vm-clock-sec", &(snapshot.vm_clock_nsec / NANO).into())?;
        text(&mut object, "id", Some(&snapshot.id))?;
        object.value("vm-state-size", &snapshot.vm_state_size.into())?;
        object.end()
    })
}

impl ContentInfo {
    /// The members of its JSON.
    pub fn value(&self) -> Value {
        Map::from_iter([
            ("name".to_owned(), Value::String(self.name.clone())),
            ("length".to_owned(), self.len.into()),
            ("filename".to_owned(), Value::String(self.filename.clone())),
        ])
        .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn file(name: &str, length: u64) -> LayerInfo {
        LayerInfo {
            filename: name.into(),
            format: "file".into(),
            virtual_size: length,
            actual_size: Some(4096),
            dirty: Some(false),
            specific_type: Some("file"),
            specific: Some(json!({}).into()),
            ..LayerInfo::default()
        }
    }

    fn overlay() -> LayerInfo {
        LayerInfo {
            filename: "sub/top".into(),
            format: "qcow2".into(),
            virtual_size: 1 << 20,
            cluster_size: Some(65536),
            encrypted: true,
            dirty: Some(true),
            backing_filename: Some("../a.raw".into()),
            full_backing_filename: Some("sub/../a.raw".into()),
            backing_format: Some("raw".into()),
            specific_type: Some("qcow2"),
            specific: Some(json!({"compat": "0.10", "refcount-bits": 16}).into()),
            children: vec![("file".into(), file("sub/top", 196_608))],
            ..LayerInfo::default()
        }
    }

    #[test]
    fn every_line_of_the_text_in_order() {
        let report = InfoReport {
            layers: vec![overlay(), file("x", 512)],
            chain: true,
            warnings: Vec::new(),
        };
        assert_eq!(
            report.text().unwrap(),
            "image: sub/top\nfile format: qcow2\nvirtual size: 1 MiB (1048576 bytes)\n\
             disk size: unavailable\nencrypted: yes\ncluster_size: 65536\n\
             cleanly shut down: no\nbacking file: ../a.raw (actual path: sub/../a.raw)\n\
             backing file format: raw\nFormat specific information:\n    compat: 0.10\n    \
             refcount bits: 16\nChild node '/file':\n    filename: sub/top\n    \
             protocol type: file\n    file length: 192 KiB (196608 bytes)\n    disk size: 4 KiB\n\
             \nimage: x\nfile format: file\nvirtual size: 512 B (512 bytes)\ndisk size: 4 KiB\n"
        );
    }

    #[test]
    fn the_keys_of_the_json_in_order() {
        let report = InfoReport {
            layers: vec![overlay()],
            chain: false,
            warnings: Vec::new(),
        };
        let keys: Vec<String> = report
            .json()
            .unwrap()
            .lines()
            .filter(|line| line.starts_with("    \""))
            .filter_map(|line| line.split('"').nth(1).map(str::to_owned))
            .collect();
        assert_eq!(
            keys,
            [
                "children",
                "backing-filename-format",
                "virtual-size",
                "filename",
                "cluster-size",
                "format",
                "format-specific",
                "encrypted",
                "full-backing-filename",
                "backing-filename",
                "dirty-flag"
            ]
        );
    }
}
