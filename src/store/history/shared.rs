//! Columns of text that many rows share, written as Parquet's dictionary pages.
//!
//! The writer of the parquet crate would look up and compare the text of every row, though the rows come
//! with keys: that was half of what history cost. Here a text is looked up once per batch.

use std::mem::take;

use arrow_array::types::Int32Type;
use arrow_array::{Array, DictionaryArray, StringArray};
use bytes::Bytes;
use foldhash::{HashMap, HashMapExt};
use parquet::basic::{Compression, Encoding, PageType, ZstdLevel};
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::ByteArray;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ColumnChunkMetaData, OffsetIndexBuilder, PageEncodingStats};
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

use super::hybrid;

/// Longer texts are no bounds: the metadata of a file is read as a whole.
const MAX_BOUND: usize = 64;

/// Compresses pages, with tables that are used again.
pub(super) struct Compressor {
    level: i32,
    zstd: zstd::bulk::Compressor<'static>,
}

impl Compressor {
    pub(super) fn new(level: i32) -> std::io::Result<Self> {
        Ok(Compressor { level, zstd: zstd::bulk::Compressor::new(level)? })
    }

    pub(super) fn compression(&self) -> Result<Compression> {
        Ok(Compression::ZSTD(ZstdLevel::try_new(self.level)?))
    }
}

/// A column chunk that is being made.
pub(super) struct SharedColumn {
    descriptor: ColumnDescPtr,
    numbers: HashMap<Box<str>, u32>,
    /// The texts in the order of their numbers, each after its length.
    dictionary: Vec<u8>,
    pages: Vec<CompressedPage>,
    rows: usize,
    nulls: usize,
    // Used again for each page.
    keys: Vec<u32>,
    levels: Vec<u32>,
    plain: Vec<u8>,
}

impl SharedColumn {
    pub(super) fn new(descriptor: ColumnDescPtr) -> Self {
        SharedColumn {
            descriptor,
            numbers: HashMap::new(),
            dictionary: Vec::new(),
            pages: Vec::new(),
            rows: 0,
            nulls: 0,
            keys: Vec::new(),
            levels: Vec::new(),
            plain: Vec::new(),
        }
    }

    /// Adds a page with these rows.
    pub(super) fn page(
        &mut self,
        rows: &DictionaryArray<Int32Type>,
        compressor: &mut Compressor,
    ) -> Result<()> {
        let texts = rows.values().as_any().downcast_ref::<StringArray>();
        let texts = texts.ok_or_else(|| foreign("a dictionary that is no text"))?;
        let present = rows.len() - rows.keys().null_count();
        self.number_keys(rows, texts)?;
        let mut plain = take(&mut self.plain);
        plain.clear();
        if self.descriptor.max_def_level() > 0 {
            self.write_levels(rows, &mut plain);
        } else if present < rows.len() {
            return Err(foreign("a row without what every row has"));
        }
        let width = hybrid::width(self.numbers.len());
        plain.push(width);
        hybrid::encode(&self.keys, width, &mut plain);
        self.pages.push(CompressedPage::new(
            Page::DataPage {
                buf: compressor.zstd.compress(&plain)?.into(),
                num_values: rows.len() as u32,
                encoding: Encoding::RLE_DICTIONARY,
                def_level_encoding: Encoding::RLE,
                rep_level_encoding: Encoding::RLE,
                statistics: None,
            },
            plain.len(),
        ));
        self.plain = plain;
        self.rows += rows.len();
        self.nulls += rows.len() - present;
        Ok(())
    }

    /// The numbers of the texts of those rows that have one.
    fn number_keys(&mut self, rows: &DictionaryArray<Int32Type>, texts: &StringArray) -> Result<()> {
        const UNSEEN: u32 = u32::MAX;
        let mut numbers = vec![UNSEEN; texts.len()];
        let mut keys = take(&mut self.keys);
        keys.clear();
        keys.reserve(rows.len());
        for row in 0..rows.len() {
            if rows.keys().is_null(row) {
                continue;
            }
            let key = rows.keys().value(row) as usize;
            let number = numbers.get_mut(key).ok_or_else(|| foreign("a key of no text"))?;
            if *number == UNSEEN {
                *number = self.number(texts.value(key));
            }
            keys.push(*number);
        }
        self.keys = keys;
        Ok(())
    }

    fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.numbers.len() as u32;
        self.numbers.insert(text.into(), number);
        self.dictionary.extend_from_slice(&(text.len() as u32).to_le_bytes());
        self.dictionary.extend_from_slice(text.as_bytes());
        number
    }

    /// Which rows have a text: 1 for those, 0 for the others, after the number of bytes that takes.
    fn write_levels(&mut self, rows: &DictionaryArray<Int32Type>, plain: &mut Vec<u8>) {
        self.levels.clear();
        match rows.keys().nulls() {
            None => self.levels.resize(rows.len(), 1),
            Some(nulls) => self.levels.extend(nulls.iter().map(u32::from)),
        }
        plain.extend_from_slice(&[0; 4]);
        hybrid::encode(&self.levels, 1, plain);
        let length = (plain.len() - 4) as u32;
        if let Some(place) = plain.get_mut(..4) {
            place.copy_from_slice(&length.to_le_bytes());
        }
    }

    /// The chunk as it stands in the file, and what is said of it there.
    pub(super) fn close(self, compressor: &mut Compressor) -> Result<(Bytes, ColumnCloseResult)> {
        let statistics = self.statistics();
        let mut to = TrackedWrite::new(Vec::new());
        let mut writer = SerializedPageWriter::new(&mut to);
        let dictionary = Page::DictionaryPage {
            buf: compressor.zstd.compress(&self.dictionary)?.into(),
            num_values: self.numbers.len() as u32,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        let head = writer.write_page(CompressedPage::new(dictionary, self.dictionary.len()))?;
        let mut offsets = OffsetIndexBuilder::new();
        let (mut uncompressed, data_at) = (head.uncompressed_size, head.bytes_written);
        let count = self.pages.len() as i32;
        for page in self.pages {
            let rows = page.num_values();
            let written = writer.write_page(page)?;
            uncompressed += written.uncompressed_size;
            offsets.append_row_count(rows.into());
            offsets.append_offset_and_size(written.offset as i64, written.compressed_size as i32);
        }
        let bytes = Bytes::from(to.into_inner()?);
        let pages = |page_type, encoding, count| PageEncodingStats { page_type, encoding, count };
        let metadata = ColumnChunkMetaData::builder(self.descriptor)
            .set_compression(compressor.compression()?)
            .set_encodings(vec![Encoding::PLAIN, Encoding::RLE, Encoding::RLE_DICTIONARY])
            .set_page_encoding_stats(vec![
                pages(PageType::DICTIONARY_PAGE, Encoding::PLAIN, 1),
                pages(PageType::DATA_PAGE, Encoding::RLE_DICTIONARY, count),
            ])
            .set_total_compressed_size(bytes.len() as i64)
            .set_total_uncompressed_size(uncompressed as i64)
            .set_num_values(self.rows as i64)
            .set_dictionary_page_offset(Some(0))
            .set_data_page_offset(data_at as i64)
            .set_statistics(statistics)
            .build()?;
        let close = ColumnCloseResult {
            bytes_written: bytes.len() as u64,
            rows_written: self.rows as u64,
            metadata,
            bloom_filter: None,
            column_index: None,
            offset_index: Some(offsets.build()),
        };
        Ok((bytes, close))
    }

    fn statistics(&self) -> Statistics {
        let bound = |text: Option<&Box<str>>| {
            text.filter(|text| text.len() <= MAX_BOUND).map(|text| ByteArray::from(&**text))
        };
        let (least, greatest) = (self.numbers.keys().min(), self.numbers.keys().max());
        let distinct = None;
        Statistics::byte_array(bound(least), bound(greatest), distinct, Some(self.nulls as u64), false)
    }
}

fn foreign(what: &str) -> ParquetError {
    ParquetError::General(format!("{what} was to be written"))
}
