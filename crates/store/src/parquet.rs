//! A Parquet file as the Arrow file that it was written beside.

use std::sync::Arc;

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow_array::RecordBatch;
use arrow_ipc::writer::FileWriter;
use bytes::Bytes;

use crate::columns::schema;
use crate::pack::ASSUMED;
use crate::{Error, Packed, Stamp};

/// For which software a Parquet file was packed; its rows are not looked at.
///
/// # Errors
/// If it is none of `fleet pack --parquet`, or damaged.
pub fn stamp_of_parquet(bytes: Bytes) -> Result<Stamp, Error> {
    stamp(&ParquetRecordBatchReaderBuilder::try_new(bytes)?)
}

fn stamp(builder: &ParquetRecordBatchReaderBuilder<Bytes>) -> Result<Stamp, Error> {
    let pairs = builder.schema().metadata.iter();
    Stamp::of_metadata(&pairs.map(|(key, value)| (key.to_string(), value.to_string())).collect())
}

/// Reads a Parquet file of `fleet pack --parquet`, decoded into memory.
///
/// # Errors
/// If it is none, or damaged.
pub fn from_parquet(bytes: Bytes) -> Result<Packed, Error> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
    let stamp = stamp(&builder)?;
    let kept = builder.metadata().file_metadata().key_value_metadata();
    let assumed = kept.into_iter().flatten().find(|pair| pair.key == ASSUMED).and_then(|pair| pair.value.clone());
    let schema = schema(&stamp);
    let mut writer = FileWriter::try_new(Vec::new(), &schema)?;
    for batch in builder.with_batch_size(1 << 16).build()? {
        let batch = batch?;
        let named = |field: &Arc<arrow_schema::Field>| {
            let column = batch.column_by_name(field.name());
            column.cloned().ok_or_else(|| Error::Foreign(format!("it has no column `{}`", field.name())))
        };
        let arrays = schema.fields().iter().map(named).collect::<Result<Vec<_>, _>>()?;
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), arrays)?)?;
    }
    if let Some(assumed) = assumed {
        writer.write_metadata(ASSUMED, assumed);
    }
    writer.finish()?;
    Packed::open(writer.into_inner()?.into())
}
