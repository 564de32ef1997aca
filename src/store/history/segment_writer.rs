//! Writes segments. Columns whose values rows share are made here ([`SharedColumn`]), the others by the
//! parquet crate.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::FieldRef;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::ColumnPath;

use super::encode::Names;
use super::rollup::{ROLLUP_KEY, Tally};
use super::schema::{Column, Kind, VERSION, VERSION_KEY, schema};
use super::segment::{FACTS_KEY, Facts, SegmentError};
use super::shared::{Compressor, SharedColumn};

/// Rows of a page: what one record costs to read.
pub(super) const PAGE_ROWS: usize = 8192;
/// Of zstd. Higher ones cost far more than they spare.
const LEVEL: i32 = 1;
/// Names that are noted; more are too many to be of use.
const MAX_NAMES: usize = 256;

/// Rows of a segment, as they are written: those of a page.
pub(super) struct Piece {
    pub(super) batch: RecordBatch,
    pub(super) wholes: u32,
    pub(super) names: Names,
}

/// Counts and sums up what is written.
struct Summing<W> {
    to: W,
    crc: crc32fast::Hasher,
}

impl<W: Write> Write for Summing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.crc.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn properties() -> Result<WriterProperties, SegmentError> {
    let path = |column: Column| ColumnPath::from(column.name());
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("netspy version ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(LEVEL)?))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_max_row_group_row_count(Some(1 << 24))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_column_statistics_enabled(path(Column::Time), EnabledStatistics::Page)
        .set_column_dictionary_enabled(path(Column::Whole), false)
        .set_sorting_columns(Some(vec![SortingColumn {
            column_idx: Column::Time as i32,
            descending: false,
            nulls_first: false,
        }]));
    for column in DELTAS {
        properties = properties
            .set_column_dictionary_enabled(path(column), false)
            .set_column_encoding(path(column), Encoding::DELTA_BINARY_PACKED);
    }
    // The crate makes writers of them, too, which would keep tables for nothing.
    for column in Column::ALL.iter().filter(|column| is_shared(**column)) {
        properties = properties
            .set_column_dictionary_enabled(path(*column), false)
            .set_column_compression(path(*column), Compression::UNCOMPRESSED);
    }
    Ok(properties.build())
}

/// Numbers of which few are the same: a dictionary would be as long as the column.
const DELTAS: [Column; 10] = [
    Column::Time,
    Column::StartNs,
    Column::Version,
    Column::LocalPort,
    Column::Latency,
    Column::CloseTime,
    Column::Duration,
    Column::BytesSent,
    Column::BytesReceived,
    Column::Srtt,
];

/// Whether many rows have the same.
fn is_shared(column: Column) -> bool {
    !matches!(column.kind(), Kind::Bool | Kind::Text) && !DELTAS.contains(&column)
}

/// A column that is being written.
enum Writer {
    Shared(Box<SharedColumn>),
    Other(Box<ArrowColumnWriter>),
}

impl Writer {
    fn write(
        &mut self,
        field: &FieldRef,
        rows: &ArrayRef,
        compressor: &mut Compressor,
    ) -> Result<(), SegmentError> {
        match self {
            Writer::Shared(column) => column.page(rows, compressor)?,
            Writer::Other(writer) => {
                for leaf in compute_leaves(field, rows)? {
                    writer.write(&leaf)?;
                }
            }
        }
        Ok(())
    }

    fn append<W: Write + Send>(
        self,
        group: &mut SerializedRowGroupWriter<'_, W>,
        compressor: &mut Compressor,
    ) -> Result<(), SegmentError> {
        match self {
            Writer::Shared(column) => {
                let (bytes, close) = column.close(compressor)?;
                group.append_column(&bytes, close)?;
            }
            Writer::Other(writer) => writer.close()?.append_to_row_group(group)?,
        }
        Ok(())
    }
}

fn writers<W: Write + Send>(
    file: &SerializedFileWriter<W>,
    factory: &ArrowRowGroupWriterFactory,
) -> Result<Vec<Writer>, SegmentError> {
    let others = factory.create_column_writers(0)?;
    let descriptors = file.schema_descr().columns();
    let columns = Column::ALL.iter().zip(descriptors).zip(others);
    Ok(columns
        .map(|((column, descriptor), other)| match is_shared(*column) {
            true => {
                let data_type = column.kind().data_type();
                Writer::Shared(Box::new(SharedColumn::new(Arc::clone(descriptor), data_type)))
            }
            false => Writer::Other(Box::new(other)),
        })
        .collect())
}

/// Writes a segment; the checksum of the file.
pub(super) fn write(
    file: &File,
    pieces: impl Iterator<Item = Result<Piece, SegmentError>>,
    mut facts: Facts,
) -> Result<u32, SegmentError> {
    let to = Summing { to: BufWriter::with_capacity(1 << 18, file), crc: Default::default() };
    let schema = schema();
    let writer = ArrowWriter::try_new(to, Arc::clone(&schema), Some(properties()?))?;
    let (mut file, factory) = writer.into_serialized_writer()?;
    let mut compressor = Compressor::new(LEVEL)?;
    let mut columns = writers(&file, &factory)?;
    let mut names = Names::default();
    let mut tally = Some(Tally::default());
    for piece in pieces {
        let piece = piece?;
        let arrays = schema.fields.iter().zip(piece.batch.columns());
        for (column, (field, rows)) in columns.iter_mut().zip(arrays) {
            column.write(field, rows, &mut compressor)?;
        }
        tally = tally.and_then(|mut tally| tally.add(&piece.batch).map(|()| tally));
        facts.wholes += piece.wholes;
        names.add(piece.names);
    }
    let mut group = file.next_row_group()?;
    for column in columns {
        column.append(&mut group, &mut compressor)?;
    }
    group.close()?;
    note_names(&mut facts, names);
    let rollup = tally.and_then(|tally| tally.to_text(facts.first_time));
    let facts = serde_json::to_string(&facts).map_err(io::Error::other)?;
    let pairs = [(VERSION_KEY, Some(VERSION.to_string())), (FACTS_KEY, Some(facts))];
    for (key, value) in pairs.into_iter().chain([(ROLLUP_KEY, rollup)]) {
        if let Some(value) = value {
            file.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
        }
    }
    let mut to = file.into_inner()?;
    to.flush()?;
    Ok(to.crc.finalize())
}

fn note_names(facts: &mut Facts, names: Names) {
    if names.processes.len() <= MAX_NAMES {
        let (names, rows) = names.processes.into_iter().unzip();
        (facts.names, facts.name_rows) = (Some(names), Some(rows));
    }
    if names.others.len() <= MAX_NAMES {
        facts.other_names = Some(names.others.into_iter().collect());
    }
}
