//! What has to be known of the columns of a segment to read them.
//!
//! The parquet crate's metadata of a segment takes some 200 KB of memory, most of it the same for every
//! segment, and there are as many of those as fit the disk. What it needs is made anew for each read, of
//! the columns that are read.

use std::sync::{Arc, Mutex, Weak};

use arrow_schema::{Schema, SchemaRef};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::basic::{CompressionCodec, EncodingMask};
use parquet::errors::Result;
use parquet::file::metadata::page_index::PageIndexBuilder;
use parquet::file::metadata::{
    ColumnChunkMetaData, FileMetaData, ParquetMetaData, ParquetMetaDataBuilder, RowGroupMetaData,
};
use parquet::file::page_index::offset_index::OffsetIndexMetaData;
use parquet::schema::types::{ColumnDescPtr, SchemaDescriptor, Type, TypePtr};

use super::lock;
use super::schema::Column;
use super::segment::SegmentError;

/// The columns of a file, which most files have in common.
#[derive(Debug, PartialEq)]
struct Layout {
    types: Vec<TypePtr>,
    schema: SchemaRef,
}

/// Where a column lies.
#[derive(Debug)]
struct Chunk {
    encodings: EncodingMask,
    codec: CompressionCodec,
    values: i64,
    compressed: i64,
    uncompressed: i64,
    data_at: i64,
    dictionary_at: Option<i64>,
    /// It says nothing of any row.
    is_empty: bool,
    pages: Option<OffsetIndexMetaData>,
}

#[derive(Debug)]
pub(super) struct Footer {
    layout: Arc<Layout>,
    rows: i64,
    chunks: Vec<Chunk>,
}

impl Footer {
    pub(super) fn of(metadata: &ArrowReaderMetadata) -> std::result::Result<Self, SegmentError> {
        let (schema, metadata) = (metadata.schema(), metadata.metadata());
        let types = metadata.file_metadata().schema_descr().root_schema().get_fields();
        let [group] = metadata.row_groups() else {
            return Err(SegmentError::Foreign("it is not of one row group"));
        };
        let are_flat = types.iter().all(|column| column.is_primitive());
        if !are_flat || types.len() != group.num_columns() || types.len() != schema.fields().len() {
            return Err(SegmentError::Foreign("it has columns within columns"));
        }
        let pages = metadata.page_index();
        let chunk = |(place, chunk): (usize, &ColumnChunkMetaData)| {
            let nulls = chunk.statistics().and_then(|statistics| statistics.null_count_opt());
            Chunk {
                encodings: *chunk.encodings_mask(),
                codec: chunk.compression_codec(),
                values: chunk.num_values(),
                compressed: chunk.compressed_size(),
                uncompressed: chunk.uncompressed_size(),
                data_at: chunk.data_page_offset(),
                dictionary_at: chunk.dictionary_page_offset(),
                is_empty: nulls.is_some_and(|n| i64::try_from(n) == Ok(group.num_rows())),
                pages: pages.and_then(|pages| pages.offset_index(0, place)).cloned(),
            }
        };
        Ok(Footer {
            layout: shared(Layout { types: types.to_vec(), schema: Arc::clone(schema) }),
            rows: group.num_rows(),
            chunks: group.columns().iter().enumerate().map(chunk).collect(),
        })
    }

    /// What the crate has to know to read these columns; `None` if there is nothing to read. Those that
    /// are null in every row are left out, which reads the same: the reader would take its time over them,
    /// since it makes a dictionary of what is not there.
    pub(super) fn of_columns(&self, columns: &[Column]) -> Result<Option<ArrowReaderMetadata>> {
        let Layout { types, schema } = &*self.layout;
        let is_wanted = |name: &str| columns.iter().any(|column| column.name() == name);
        let parts = types.iter().zip(schema.fields()).zip(&self.chunks);
        let parts: Vec<_> =
            parts.filter(|((kind, _), chunk)| is_wanted(kind.name()) && !chunk.is_empty).collect();
        if parts.is_empty() {
            return Ok(None);
        }
        let types = parts.iter().map(|((kind, _), _)| Arc::clone(kind)).collect();
        let root = Type::group_type_builder("columns").with_fields(types).build()?;
        let descriptor = Arc::new(SchemaDescriptor::new(Arc::new(root)));
        let mut pages = PageIndexBuilder::default();
        pages.allocate_offset_indexes(1, parts.len());
        let mut group = RowGroupMetaData::builder(Arc::clone(&descriptor)).set_num_rows(self.rows);
        for (place, ((_, chunk), column)) in parts.iter().zip(descriptor.columns()).enumerate() {
            group = group.add_column_metadata(chunk.metadata(column)?);
            if let Some(index) = &chunk.pages {
                pages.put_offset_index(index.clone(), 0, place);
            }
        }
        let file = FileMetaData::new(1, self.rows, None, None, Arc::clone(&descriptor), None);
        let metadata: ParquetMetaData = ParquetMetaDataBuilder::new(file)
            .add_row_group(group.build()?)
            .set_page_index(Some(Arc::new(pages.build())))
            .build();
        let fields: Vec<_> = parts.iter().map(|((_, field), _)| Arc::clone(field)).collect();
        let options = ArrowReaderOptions::new().with_schema(Arc::new(Schema::new(fields)));
        ArrowReaderMetadata::try_new(Arc::new(metadata), options).map(Some)
    }
}

impl Chunk {
    fn metadata(&self, column: &ColumnDescPtr) -> Result<ColumnChunkMetaData> {
        ColumnChunkMetaData::builder(Arc::clone(column))
            .set_encodings_mask(self.encodings)
            .set_compression_codec(self.codec)
            .set_num_values(self.values)
            .set_total_compressed_size(self.compressed)
            .set_total_uncompressed_size(self.uncompressed)
            .set_data_page_offset(self.data_at)
            .set_dictionary_page_offset(self.dictionary_at)
            .build()
    }
}

/// The same layout once, as long as files come that have it.
fn shared(layout: Layout) -> Arc<Layout> {
    static LATEST: Mutex<Weak<Layout>> = Mutex::new(Weak::new());
    let mut latest = lock(&LATEST);
    if let Some(known) = latest.upgrade().filter(|known| **known == layout) {
        return known;
    }
    let layout = Arc::new(layout);
    *latest = Arc::downgrade(&layout);
    layout
}
