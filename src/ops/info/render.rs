//! The JSON and the text of `info`.

use std::io::Write;

use bstr::BString;

use super::{ContentInfo, InfoReport, LayerInfo};
use crate::format::SnapshotInfo;
use crate::ops::render::{human, json};
use crate::printable::{printable_bytes, printable_name};
use crate::size::human_size;
use crate::value::{Map, Value};

impl InfoReport {
    /// The JSON that `qemu-img info --output=json` prints, with its final newline.
    pub fn json(&self) -> String {
        let mut layers = self.layers.iter().map(LayerInfo::value);
        let value = if self.chain {
            Value::Array(layers.collect())
        } else {
            layers.next().unwrap_or_default()
        };
        json::pretty(&value)
    }

    /// The text that `qemu-img info` prints.
    pub fn text(&self) -> BString {
        let mut out = BString::default();
        for (i, layer) in self.layers.iter().enumerate() {
            if i > 0 {
                out.push(b'\n');
            }
            layer.write_text(&mut out, "/", 0);
        }
        out
    }
}

impl LayerInfo {
    /// The JSON object, keys in QEMU's order.
    fn value(&self) -> Value {
        let mut map = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                map.insert(key.to_owned(), value);
            }
        };
        let text = |text: &Option<BString>| text.clone().map(Value::String);
        let children = self
            .children
            .iter()
            .map(|(name, child)| {
                Map::from_iter([
                    ("name".to_owned(), Value::from(name.as_str())),
                    ("info".to_owned(), child.value()),
                ])
                .into()
            })
            .collect();
        put("children", Some(Value::Array(children)));
        put("backing-filename-format", text(&self.backing_format));
        let snapshots: Vec<Value> = self.snapshots.iter().map(snapshot_value).collect();
        put(
            "snapshots",
            (!snapshots.is_empty()).then_some(Value::Array(snapshots)),
        );
        put("virtual-size", Some(self.virtual_size.into()));
        put("filename", Some(self.filename.clone().into()));
        put("cluster-size", self.cluster_size.map(Value::from));
        put("format", Some(self.format.clone().into()));
        put("actual-size", self.actual_size.map(Value::from));
        put(
            "format-specific",
            self.specific
                .as_ref()
                .zip(self.specific_type)
                .map(|(data, kind)| {
                    Value::Object(Map::from_iter([
                        ("type".to_owned(), kind.into()),
                        ("data".to_owned(), data.clone()),
                    ]))
                }),
        );
        put("encrypted", self.encrypted.then_some(Value::Bool(true)));
        put("full-backing-filename", text(&self.full_backing_filename));
        put("backing-filename", text(&self.backing_filename));
        put("dirty-flag", self.dirty.map(Value::Bool));
        let contents: Vec<Value> = self.contents.iter().map(ContentInfo::value).collect();
        put(
            "contents",
            (!contents.is_empty()).then_some(Value::Array(contents)),
        );
        Value::Object(map)
    }

    /// The lines of one node at `depth`; `path` is its place in the tree of nodes, ending in a slash.
    fn write_text(&self, out: &mut BString, path: &str, depth: usize) {
        let indent = "    ".repeat(depth);
        let line = |out: &mut BString, key: &str, value: &[u8]| {
            out.extend_from_slice(format!("{indent}{key}: ").as_bytes());
            out.extend_from_slice(&printable_name(value));
            out.push(b'\n');
        };
        // A child without children is a file or another end of the tree.
        let protocol = depth > 0 && self.children.is_empty();
        let [name, driver, length] = if protocol {
            ["filename", "protocol type", "file length"]
        } else {
            ["image", "file format", "virtual size"]
        };
        line(out, name, &self.filename);
        line(out, driver, self.format.as_bytes());
        let size = format!(
            "{} ({} bytes)",
            human_size(self.virtual_size),
            self.virtual_size
        );
        line(out, length, size.as_bytes());
        let disk = self
            .actual_size
            .map_or_else(|| "unavailable".to_owned(), human_size);
        line(out, "disk size", disk.as_bytes());
        if self.encrypted {
            line(out, "encrypted", b"yes");
        }
        if let Some(size) = self.cluster_size {
            line(out, "cluster_size", size.to_string().as_bytes());
        }
        if self.dirty == Some(true) {
            line(out, "cleanly shut down", b"no");
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
            line(out, "backing file", &shown);
            if let Some(format) = &self.backing_format {
                line(out, "backing file format", format);
            }
        }
        if !self.snapshots.is_empty() {
            human::write_snapshots(out, &indent, &self.snapshots);
        }
        if let Some(specific) = &self.specific {
            let tree = human::tree(specific, depth + 1);
            if !tree.is_empty() {
                // Writing to memory cannot fail.
                let _ = writeln!(&mut **out, "{indent}Format specific information:");
                out.extend_from_slice(&tree);
            }
        }
        if !self.contents.is_empty() {
            let _ = writeln!(&mut **out, "{indent}Contents:");
        }
        for content in &self.contents {
            let size = format!("{} ({} bytes)", human_size(content.len), content.len);
            let name = printable_bytes(&content.name);
            let _ = writeln!(&mut **out, "{indent}    {name}: {size}");
        }
        for (name, child) in &self.children {
            let _ = writeln!(&mut **out, "{indent}Child node '{path}{name}':");
            child.write_text(out, &format!("{path}{name}/"), depth + 1);
        }
    }
}

impl ContentInfo {
    fn value(&self) -> Value {
        Map::from_iter([
            ("name".to_owned(), Value::String(self.name.clone())),
            ("length".to_owned(), self.len.into()),
            ("filename".to_owned(), Value::String(self.filename.clone())),
        ])
        .into()
    }
}

pub(in crate::ops) fn snapshot_value(snapshot: &SnapshotInfo) -> Value {
    let mut map = Map::new();
    if let Some(icount) = snapshot.icount {
        map.insert("icount".to_owned(), icount.into());
    }
    const NANO: u64 = 1_000_000_000;
    for (key, value) in [
        ("vm-clock-nsec", (snapshot.vm_clock_nsec % NANO).into()),
        ("name", Value::from(snapshot.name.clone())),
        ("date-sec", snapshot.date_sec.into()),
        ("date-nsec", snapshot.date_nsec.into()),
        ("vm-clock-sec", (snapshot.vm_clock_nsec / NANO).into()),
        ("id", snapshot.id.clone().into()),
        ("vm-state-size", snapshot.vm_state_size.into()),
    ] {
        map.insert(key.to_owned(), value);
    }
    Value::Object(map)
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
            report.text(),
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
