//! Segments: Parquet files that are written once, sorted by time.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use arrow_array::RecordBatch;
use bytes::Bytes;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
};
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, PageIndexPolicy, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{ChunkReader, Length};
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};

use super::encode::Names;
use super::guard::guarded;
use super::schema::{Column, VERSION, VERSION_KEY, schema};
use super::{MAX_CHANGE, lock};
use crate::event::ConnectionId;
use crate::store::archive::Rows;
use crate::store::matcher::Selection;
use crate::store::segment::Range;

/// Under which key of a file's metadata its [`Facts`] stand.
const FACTS_KEY: &str = "netspy.segment";
/// Rows of a page: what one record costs to read.
const PAGE_ROWS: usize = 8192;

/// What has to be known of a segment without reading it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Facts {
    /// The last change before those in it.
    pub(super) after: u64,
    /// Its last change.
    pub(super) last: u64,
    pub(super) rows: u32,
    /// Rows that are later versions of records in earlier segments.
    pub(super) patches: u32,
    /// Rows that hold their record as JSON.
    pub(super) wholes: u32,
    pub(super) first_time: i64,
    pub(super) last_time: i64,
    /// Of the other rows: by boot, least and greatest start in their ids.
    pub(super) starts: Vec<(u32, u64, u64)>,
    /// The names of all processes, if they are few.
    #[serde(default)]
    pub(super) names: Option<Vec<Box<str>>>,
    /// Those of threads and executables that are not those of their processes, if they are few.
    #[serde(default)]
    pub(super) other_names: Option<Vec<Box<str>>>,
}

impl Facts {
    /// Whether a segment can be so; each of these is relied on.
    fn make_sense(&self) -> bool {
        self.after < self.last
            && self.last <= MAX_CHANGE
            && (1..=MAX_ROWS).contains(&self.rows)
            && self.patches <= self.rows
            && self.first_time <= self.last_time
    }
}

/// Rows that a segment has at most: far more than is ever written. A page of a few bytes may hold any
/// number of rows, which memory would have to hold.
const MAX_ROWS: u32 = 1 << 24;

/// Names that are noted; more are too many to be of use.
const MAX_NAMES: usize = 256;

fn few(names: BTreeSet<Box<str>>) -> Option<Vec<Box<str>>> {
    (names.len() <= MAX_NAMES).then(|| names.into_iter().collect())
}

/// Rows of a segment, as they are written.
pub(super) struct Piece {
    pub(super) batch: RecordBatch,
    pub(super) wholes: u32,
    pub(super) names: Names,
}

/// Why a segment cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum SegmentError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Parquet(#[from] ParquetError),
    #[error(transparent)]
    Arrow(#[from] arrow_schema::ArrowError),
    #[error("it is of version {0}, and this program reads up to version {VERSION}")]
    Newer(u32),
    #[error("{0}")]
    Foreign(&'static str),
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
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
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
    for column in [
        Column::Time,
        Column::StartNs,
        Column::Version,
        Column::Latency,
        Column::CloseTime,
        Column::Duration,
    ] {
        properties = properties
            .set_column_dictionary_enabled(path(column), false)
            .set_column_encoding(path(column), Encoding::DELTA_BINARY_PACKED);
    }
    Ok(properties.build())
}

/// Writes a segment; the checksum of the file.
pub(super) fn write(
    file: &File,
    pieces: impl Iterator<Item = Result<Piece, SegmentError>>,
    mut facts: Facts,
) -> Result<u32, SegmentError> {
    let to = Summing { to: BufWriter::with_capacity(1 << 18, file), crc: Default::default() };
    let mut writer = ArrowWriter::try_new(to, schema(), Some(properties()?))?;
    let mut names = Names::default();
    for piece in pieces {
        let piece = piece?;
        writer.write(&piece.batch)?;
        facts.wholes += piece.wholes;
        names.processes.extend(piece.names.processes);
        names.others.extend(piece.names.others);
    }
    (facts.names, facts.other_names) = (few(names.processes), few(names.others));
    let facts = serde_json::to_string(&facts).map_err(io::Error::other)?;
    for (key, value) in [(VERSION_KEY, VERSION.to_string()), (FACTS_KEY, facts)] {
        writer.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
    }
    let mut to = writer.into_inner()?;
    to.flush()?;
    Ok(to.crc.finalize())
}

/// The checksum of a whole file.
pub(super) fn checksum(path: &Path) -> io::Result<u32> {
    let mut file = File::open(path)?;
    let mut crc = crc32fast::Hasher::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(crc.finalize()),
            n => crc.update(buffer.get(..n).unwrap_or_default()),
        }
    }
}

/// Reads at places, which several can do at a time.
#[derive(Clone)]
struct Places {
    file: Arc<File>,
    length: u64,
}

impl Length for Places {
    fn len(&self) -> u64 {
        self.length
    }
}

struct At {
    file: Arc<File>,
    at: u64,
}

impl Read for At {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(to, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl ChunkReader for Places {
    type T = io::BufReader<At>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        let file = Arc::clone(&self.file);
        Ok(io::BufReader::with_capacity(1 << 12, At { file, at: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let end = start.checked_add(length as u64);
        if end.is_none_or(|end| end > self.length) {
            return Err(ParquetError::EOF("a part lies beyond the end of the file".to_owned()));
        }
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, start)?;
        Ok(bytes.into())
    }
}

/// A segment on disk.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) facts: Facts,
    metadata: ArrowReaderMetadata,
    /// Ids and rows of its patches.
    pub(super) patches: Vec<(ConnectionId, u32)>,
    /// Rows of which there are newer versions elsewhere, in order.
    hidden: RwLock<Arc<Vec<u32>>>,
    unreadable: AtomicBool,
    /// What the latest questions counted.
    counts: Mutex<VecDeque<(Counted, u64)>>,
}

/// What a count depends on: a question without its window, and how many rows were hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) question: Selection,
    pub(super) hidden: usize,
}

/// Counts that a segment remembers.
const MAX_COUNTS: usize = 16;

impl Segment {
    pub(super) fn open(number: u64, path: &Path) -> Result<Self, SegmentError> {
        let places = places(path)?;
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
        let metadata = guarded(|| Ok(ArrowReaderMetadata::load(&places, options)?))?;
        let pairs = metadata.metadata().file_metadata().key_value_metadata();
        let value = |key: &str| {
            let pair = pairs.and_then(|pairs| pairs.iter().find(|pair| pair.key == key));
            pair.and_then(|pair| pair.value.as_deref())
        };
        let version = value(VERSION_KEY).and_then(|version| version.parse().ok());
        match version.ok_or(SegmentError::Foreign("it says no version"))? {
            0..=VERSION => {}
            newer => return Err(SegmentError::Newer(newer)),
        }
        let facts = value(FACTS_KEY).and_then(|facts| serde_json::from_str::<Facts>(facts).ok());
        let facts = facts.ok_or(SegmentError::Foreign("it does not say what is in it"))?;
        if !facts.make_sense() {
            return Err(SegmentError::Foreign("what it says of itself makes no sense"));
        }
        if i64::from(facts.rows) != metadata.metadata().file_metadata().num_rows() {
            return Err(SegmentError::Foreign("it does not have the rows that it says"));
        }
        let mut segment = Segment {
            number,
            path: path.to_owned(),
            bytes: places.length,
            facts,
            metadata,
            patches: Vec::new(),
            hidden: RwLock::default(),
            unreadable: AtomicBool::new(false),
            counts: Mutex::default(),
        };
        if segment.facts.patches > 0 {
            segment.patches = segment.find_patches()?;
        }
        Ok(segment)
    }

    fn find_patches(&self) -> Result<Vec<(ConnectionId, u32)>, SegmentError> {
        let all = Rows::Range(0..self.facts.rows);
        let flags = super::columns::flags(&self.read(&[Column::Patch], &all)?, Column::Patch);
        let rows = (0..self.facts.rows).filter(|row| flags.get(*row as usize) == Some(true));
        let rows: Vec<u32> = rows.collect();
        Ok(self.ids(&Rows::List(rows.clone()))?.into_iter().zip(rows).collect())
    }

    /// The checksum of the file, as it stands in its name.
    pub(super) fn crc(&self) -> Option<&str> {
        self.path.file_stem()?.to_str()?.split_once('-').map(|(_, crc)| crc)
    }

    pub(super) fn times(&self) -> Range<i64> {
        Range { min: self.facts.first_time, max: self.facts.last_time }
    }

    /// Whether a record with this id may be in it.
    pub(super) fn may_hold(&self, id: ConnectionId) -> bool {
        let inside = |(boot, min, max): &(u32, u64, u64)| {
            *boot == id.boot && (*min..=*max).contains(&id.start_ns)
        };
        self.facts.starts.iter().any(inside)
            || self.patches.iter().any(|(patched, _)| *patched == id)
    }

    /// Columns of some of the rows.
    pub(super) fn read(
        &self,
        columns: &[Column],
        rows: &Rows,
    ) -> Result<RecordBatch, SegmentError> {
        guarded(|| self.read_columns(columns, rows))
    }

    fn read_columns(&self, columns: &[Column], rows: &Rows) -> Result<RecordBatch, SegmentError> {
        let descriptor = self.metadata.parquet_schema();
        let wanted = |place: &usize| {
            let name = descriptor.root_schema().get_fields().get(*place).map(|field| field.name());
            columns.iter().any(|column| Some(column.name()) == name)
        };
        let places_of = (0..descriptor.root_schema().get_fields().len()).filter(wanted);
        let mask = ProjectionMask::roots(descriptor, places_of);
        let places = places(&self.path)?;
        let mut builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(places, self.metadata.clone())
                .with_projection(mask)
                .with_batch_size(rows.len().max(1));
        let total = self.facts.rows as usize;
        if rows.len() < total {
            builder = builder.with_row_selection(row_selection(rows, total));
        }
        let schema = Arc::clone(builder.schema());
        let mut reader = builder.build()?;
        let batch = match reader.next() {
            None => RecordBatch::new_empty(schema),
            Some(batch) => batch?,
        };
        match batch.num_rows() == rows.len() {
            true => Ok(batch),
            false => Err(SegmentError::Foreign("rows are missing")),
        }
    }

    /// The ids of some of the rows.
    pub(super) fn ids(&self, rows: &Rows) -> Result<Vec<ConnectionId>, SegmentError> {
        use super::columns::numbers;
        use arrow_array::types::{UInt32Type, UInt64Type};
        let columns = [Column::StartNs, Column::IdTid, Column::Boot];
        let batch = self.read(&columns, rows)?;
        let start = numbers::<UInt64Type>(&batch, Column::StartNs);
        let tid = numbers::<UInt32Type>(&batch, Column::IdTid);
        let boot = numbers::<UInt32Type>(&batch, Column::Boot);
        let id = |row| {
            Some(ConnectionId {
                start_ns: start.get(row)?,
                tid: tid.get(row)?,
                boot: boot.get(row)?,
            })
        };
        let missing = SegmentError::Foreign("a row has no id");
        (0..rows.len()).map(id).collect::<Option<_>>().ok_or(missing)
    }

    pub(super) fn hidden(&self) -> Arc<Vec<u32>> {
        Arc::clone(&self.hidden.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Hides rows; how many of them were not hidden before.
    pub(super) fn hide(&self, rows: impl IntoIterator<Item = u32>) -> u64 {
        let mut hidden = self.hidden.write().unwrap_or_else(PoisonError::into_inner);
        let mut new = Vec::clone(&hidden);
        new.extend(rows);
        new.sort_unstable();
        new.dedup();
        let more = (new.len() - hidden.len()) as u64;
        *hidden = Arc::new(new);
        more
    }

    /// Rows that are shown.
    pub(super) fn shown(&self) -> u64 {
        u64::from(self.facts.rows).saturating_sub(self.hidden().len() as u64)
    }

    /// The count of a question that was asked before, while nothing has changed.
    pub(super) fn counted(&self, counted: &Counted) -> Option<u64> {
        let counts = lock(&self.counts);
        counts.iter().find(|(known, _)| known == counted).map(|(_, count)| *count)
    }

    /// Remembers a count for the next time; the oldest goes.
    pub(super) fn note_count(&self, counted: Counted, count: u64) {
        if self.is_unreadable() {
            return;
        }
        let mut counts = lock(&self.counts);
        counts.truncate(MAX_COUNTS - 1);
        counts.push_front((counted, count));
    }

    /// Says once that it cannot be read. That it is gone is no news: the oldest are let go.
    pub(super) fn complain(&self, error: &SegmentError) {
        let gone = matches!(error, SegmentError::Io(e) if e.kind() == io::ErrorKind::NotFound);
        if !gone && !self.unreadable.swap(true, Ordering::Relaxed) {
            tracing::error!("{}: cannot be read, and is left out: {error}", self.path.display());
        }
    }

    pub(super) fn is_unreadable(&self) -> bool {
        self.unreadable.load(Ordering::Relaxed)
    }
}

fn places(path: &Path) -> io::Result<Places> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    Ok(Places { file: Arc::new(file), length })
}

fn row_selection(rows: &Rows, total: usize) -> RowSelection {
    match rows {
        Rows::Range(range) => {
            let range = range.start as usize..range.end as usize;
            RowSelection::from_consecutive_ranges(std::iter::once(range), total)
        }
        Rows::List(list) => {
            let runs = list
                .chunk_by(|a, b| a + 1 == *b)
                .filter_map(|run| Some(*run.first()? as usize..*run.last()? as usize + 1));
            RowSelection::from_consecutive_ranges(runs, total)
        }
    }
}
