//! Columns whose values many rows share, written as Parquet's dictionary pages.
//!
//! The writer of the parquet crate looks up and compares the value of every row, and the bounds of the
//! column with it: that was half of what history cost. Texts come with keys, so that one is looked up once
//! per page; the numbers of most rows are among those that came last.

use std::mem::take;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Int32Type, TimestampNanosecondType, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, DictionaryArray, PrimitiveArray, StringArray};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType, TimeUnit};
use bytes::Bytes;
use foldhash::HashMap;
use parquet::basic::{Compression, Encoding, PageType, Type, ZstdLevel};
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

/// The values of a column, in the order of their numbers.
#[derive(Default)]
struct Values {
    texts: HashMap<Box<str>, u32>,
    /// By their bits: those of signed ones have the upper half clear.
    numbers: HashMap<u64, u32>,
    /// Some of these, by their lowest bits.
    recent: Vec<(u64, u32)>,
    /// As they stand in the file.
    plain: Vec<u8>,
}

/// Numbers of values that are found without a look into the table.
const RECENT: usize = 256;
const NONE: u32 = u32::MAX;

impl Values {
    fn len(&self) -> usize {
        self.texts.len() + self.numbers.len()
    }

    fn text(&mut self, text: &str) -> u32 {
        if let Some(number) = self.texts.get(text) {
            return *number;
        }
        let number = self.texts.len() as u32;
        self.texts.insert(text.into(), number);
        self.plain.extend_from_slice(&(text.len() as u32).to_le_bytes());
        self.plain.extend_from_slice(text.as_bytes());
        number
    }

    /// The number of a value that takes so many bytes.
    fn number(&mut self, bits: u64, bytes: usize) -> u32 {
        let place = bits as usize % RECENT;
        if let Some((known, number)) = self.recent.get(place)
            && (*known, *number != NONE) == (bits, true)
        {
            return *number;
        }
        let next = self.numbers.len() as u32;
        let number = *self.numbers.entry(bits).or_insert(next);
        if number == next {
            self.plain.extend(bits.to_le_bytes().iter().take(bytes));
        }
        if self.recent.is_empty() {
            self.recent.resize(RECENT, (0, NONE));
        }
        if let Some(recent) = self.recent.get_mut(place) {
            *recent = (bits, number);
        }
        number
    }
}

/// A column chunk that is being made.
pub(super) struct SharedColumn {
    descriptor: ColumnDescPtr,
    /// Of the rows, as arrow has them.
    data_type: DataType,
    values: Values,
    pages: Vec<CompressedPage>,
    rows: usize,
    nulls: usize,
    // Used again for each page.
    keys: Vec<u32>,
    levels: Vec<u32>,
    plain: Vec<u8>,
}

impl SharedColumn {
    pub(super) fn new(descriptor: ColumnDescPtr, data_type: DataType) -> Self {
        SharedColumn {
            descriptor,
            data_type,
            values: Values::default(),
            pages: Vec::new(),
            rows: 0,
            nulls: 0,
            keys: Vec::new(),
            levels: Vec::new(),
            plain: Vec::new(),
        }
    }

    /// Adds a page with these rows.
    pub(super) fn page(&mut self, rows: &ArrayRef, compressor: &mut Compressor) -> Result<()> {
        self.keys.clear();
        self.number_rows(rows)?;
        let mut plain = take(&mut self.plain);
        plain.clear();
        if self.descriptor.max_def_level() > 0 {
            self.write_levels(rows.len(), rows.nulls(), &mut plain);
        } else if rows.null_count() > 0 {
            return Err(foreign("a row without what every row has"));
        }
        let width = hybrid::width(self.values.len());
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
        self.nulls += rows.null_count();
        Ok(())
    }

    /// The numbers of the values of those rows that have one.
    fn number_rows(&mut self, rows: &ArrayRef) -> Result<()> {
        let missing = || foreign("a column that is none of these");
        if let Some(rows) = rows.as_dictionary_opt::<Int32Type>() {
            return self.number_texts(rows);
        }
        let (keys, values) = (&mut self.keys, &mut self.values);
        match rows.data_type() {
            DataType::UInt16 => {
                let rows = rows.as_primitive_opt::<UInt16Type>().ok_or_else(missing)?;
                each(rows, |n| keys.push(values.number(n.into(), 4)));
            }
            DataType::UInt32 => {
                let rows = rows.as_primitive_opt::<UInt32Type>().ok_or_else(missing)?;
                each(rows, |n| keys.push(values.number(n.into(), 4)));
            }
            DataType::Int32 => {
                let rows = rows.as_primitive_opt::<Int32Type>().ok_or_else(missing)?;
                each(rows, |n| keys.push(values.number(n.cast_unsigned().into(), 4)));
            }
            DataType::UInt64 => {
                let rows = rows.as_primitive_opt::<UInt64Type>().ok_or_else(missing)?;
                each(rows, |n| keys.push(values.number(n, 8)));
            }
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                let rows = rows.as_primitive_opt::<TimestampNanosecondType>();
                each(rows.ok_or_else(missing)?, |n| keys.push(values.number(n.cast_unsigned(), 8)));
            }
            _ => return Err(missing()),
        }
        Ok(())
    }

    fn number_texts(&mut self, rows: &DictionaryArray<Int32Type>) -> Result<()> {
        let texts = rows.values().as_any().downcast_ref::<StringArray>();
        let texts = texts.ok_or_else(|| foreign("a dictionary that is no text"))?;
        // Not all need be in use.
        let mut numbers = vec![NONE; texts.len()];
        let (keys, values) = (&mut self.keys, &mut self.values);
        each(rows.keys(), |key| {
            if let Some(number) = numbers.get_mut(key as usize) {
                if *number == NONE {
                    *number = values.text(texts.value(key as usize));
                }
                keys.push(*number);
            }
        });
        match self.keys.len() == rows.len() - rows.keys().null_count() {
            true => Ok(()),
            false => Err(foreign("a key of no text")),
        }
    }

    /// Which rows have a value: 1 for those, 0 for the others, after the number of bytes that takes.
    fn write_levels(&mut self, rows: usize, nulls: Option<&NullBuffer>, plain: &mut Vec<u8>) {
        self.levels.clear();
        match nulls {
            None => self.levels.resize(rows, 1),
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
            buf: compressor.zstd.compress(&self.values.plain)?.into(),
            num_values: self.values.len() as u32,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        let head = writer.write_page(CompressedPage::new(dictionary, self.values.plain.len()))?;
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
        let (distinct, nulls, old) = (None, Some(self.nulls as u64), false);
        let texts = &self.values.texts;
        let numbers = self.values.numbers.keys().copied();
        // Bits of signed numbers have to be told from those of the others.
        let signed = |bits: u64| match self.data_type {
            DataType::Int32 => i64::from(bits as u32 as i32),
            _ => bits.cast_signed(),
        };
        let is_signed = matches!(self.data_type, DataType::Int32 | DataType::Timestamp(..));
        let (least, greatest) = match is_signed {
            true => {
                (numbers.clone().min_by_key(|n| signed(*n)), numbers.max_by_key(|n| signed(*n)))
            }
            false => (numbers.clone().min(), numbers.max()),
        };
        match self.descriptor.physical_type() {
            Type::INT32 => {
                let bound = |bits: Option<u64>| bits.map(|bits| bits as u32 as i32);
                Statistics::int32(bound(least), bound(greatest), distinct, nulls, old)
            }
            Type::INT64 => {
                let bound = |bits: Option<u64>| bits.map(u64::cast_signed);
                Statistics::int64(bound(least), bound(greatest), distinct, nulls, old)
            }
            _ => {
                let bound = |text: Option<&Box<str>>| {
                    text.filter(|text| text.len() <= MAX_BOUND).map(|text| ByteArray::from(&**text))
                };
                let (least, greatest) = (bound(texts.keys().min()), bound(texts.keys().max()));
                Statistics::byte_array(least, greatest, distinct, nulls, old)
            }
        }
    }
}

/// Shows what each row says that says something.
fn each<T: ArrowPrimitiveType>(rows: &PrimitiveArray<T>, mut visit: impl FnMut(T::Native)) {
    match rows.nulls() {
        None => rows.values().iter().for_each(|value| visit(*value)),
        Some(nulls) if nulls.null_count() == rows.len() => {}
        Some(nulls) => {
            let said = rows.values().iter().zip(nulls.iter()).filter(|(_, is_said)| *is_said);
            said.for_each(|(value, _)| visit(*value));
        }
    }
}

fn foreign(what: &str) -> ParquetError {
    ParquetError::General(format!("{what} was to be written"))
}
