//! Block tables in the property list: those of the array `blkx`.

use crate::error::Result;
use crate::format::property_list::PropertyList;

use super::mish::TableReader;

/// The array of block tables.
const TABLES: &str = "blkx";

/// Gives each table of the list to `tables`.
///
/// # Errors
/// [`crate::ErrorKind::Corrupt`] where it is no such list, or of [`TableReader::add`].
pub(in super::super) fn tables_of_plist(list: &[u8], tables: &mut TableReader<'_>) -> Result<()> {
    let list = PropertyList::parse(list)?;
    for resource in list.every(TABLES).flat_map(|array| array.items()) {
        if let Some(data) = resource.get("Data")
            && let Some(table) = data.data()?
        {
            tables.add(&table)?;
        }
    }
    Ok(())
}
