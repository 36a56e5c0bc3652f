//! Block tables in the property list: the elements of the array `blkx`.

use crate::error::Result;
use crate::format::property_list::PropertyList;

use super::mish::TableReader;

/// The name of the array of block tables.
const TABLES: &str = "blkx";

/// Passes each table of the list to `tables`.
///
/// # Errors
/// [`crate::ErrorKind::Corrupt`] if it is not such a list, or those of [`TableReader::add`].
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
