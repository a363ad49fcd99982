use crate::{Result, Tables};

pub(crate) fn generate(_tables: &Tables, _known: &dyn Fn(&str) -> bool) -> Result<String> {
    Ok(String::new())
}
