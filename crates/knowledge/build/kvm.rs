use crate::{Result, Tables};

pub(crate) fn generate(_tables: &Tables) -> Result<String> {
    Ok(String::new())
}
