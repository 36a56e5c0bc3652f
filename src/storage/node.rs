//! Options that every storage node takes, and the check of the others.

use bstr::{BString, ByteSlice};

use crate::error::{Error, ErrorKind, Result};
use crate::options::{OptionSpec, OptionValue, parse_value};
use crate::storage::file::Locking;
use crate::storage::registry::StorageOpen;
use crate::storage::traits::CacheMode;
use crate::value::{Map, Value};

/// The options of a node, checked.
#[derive(Clone, Debug)]
pub(crate) struct NodeOptions {
    /// The caller's wishes as the node's options changed them.
    pub(crate) how: StorageOpen,
    values: Vec<(&'static str, OptionValue)>,
}

impl NodeOptions {
    /// Checks `tree` against `table` and the options that every node has.
    pub(crate) fn parse(
        driver: &str,
        tree: &Map<String, Value>,
        how: &StorageOpen,
        table: &'static [OptionSpec],
    ) -> Result<Self> {
        let mut parsed = Self {
            how: *how,
            values: Vec::new(),
        };
        for (key, value) in tree {
            if let Some(spec) = table.iter().find(|spec| spec.name == key) {
                let value = parse_value(spec, text_of(key, value)?.as_bstr())?;
                parsed.take(spec, value)?;
            } else {
                parsed.common(driver, key, value)?;
            }
        }
        Ok(parsed)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&OptionValue> {
        self.values.iter().find(|(k, _)| *k == key).map(|(_, v)| v)
    }

    fn take(&mut self, spec: &'static OptionSpec, value: OptionValue) -> Result<()> {
        if let OptionValue::Str(text) = &value {
            if !spec.allowed.is_empty() && !spec.allowed.contains(&text.as_str()) {
                return Err(Error::invalid(format!("invalid parameter value: {text}")));
            }
            if spec.name == "locking" {
                // The caller's refusal of locks stands.
                self.how.locking = match (text.as_str(), self.how.locking) {
                    ("off", _) | (_, Locking::Off) => Locking::Off,
                    ("on", _) => Locking::On,
                    _ => self.how.locking,
                };
            }
        }
        self.values.push((spec.name, value));
        Ok(())
    }

    fn common(&mut self, driver: &str, key: &str, value: &Value) -> Result<()> {
        match key {
            "driver" | "node-name" | "auto-read-only" => Ok(()),
            "read-only" => {
                if bool_of(key, value)? && self.how.writable {
                    return Err(Error::new(
                        ErrorKind::ReadOnly,
                        "read-only=on cannot be opened for writing",
                    ));
                }
                Ok(())
            }
            "cache" => {
                let Value::Object(cache) = value else {
                    return Err(unknown(driver, key));
                };
                self.cache(driver, cache)
            }
            _ => Err(unknown(driver, key)),
        }
    }

    fn cache(&mut self, driver: &str, cache: &Map<String, Value>) -> Result<()> {
        let mode = self.how.cache;
        let mut direct = mode.direct();
        let mut no_flush = mode == CacheMode::Unsafe;
        for (key, value) in cache {
            match key.as_str() {
                "direct" => direct = bool_of("cache.direct", value)?,
                "no-flush" => no_flush = bool_of("cache.no-flush", value)?,
                _ => return Err(unknown(driver, &format!("cache.{key}"))),
            }
        }
        self.how.cache = match (direct, no_flush, mode.write_through()) {
            (false, true, _) => CacheMode::Unsafe,
            (true, true, _) => {
                return Err(Error::unsupported(
                    "cache.direct and cache.no-flush cannot both be on",
                ));
            }
            (true, false, true) => CacheMode::Directsync,
            (true, false, false) => CacheMode::None,
            (false, false, true) => CacheMode::Writethrough,
            (false, false, false) => CacheMode::Writeback,
        };
        Ok(())
    }
}

fn unknown(driver: &str, key: &str) -> Error {
    Error::invalid(format!(
        "Block protocol '{driver}' doesn't support the option '{key}'"
    ))
}

fn text_of(key: &str, value: &Value) -> Result<BString> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(true) => Ok("on".into()),
        Value::Bool(false) => Ok("off".into()),
        Value::Number(number) => Ok(number.to_string().into()),
        _ => Err(Error::invalid(format!(
            "The option '{key}' takes a plain value"
        ))),
    }
}

fn bool_of(key: &str, value: &Value) -> Result<bool> {
    match &*text_of(key, value)?.to_str_lossy() {
        "on" | "true" | "yes" | "y" => Ok(true),
        "off" | "false" | "no" | "n" => Ok(false),
        _ => Err(Error::invalid(format!(
            "Parameter '{key}' expects 'on' or 'off'"
        ))),
    }
}
