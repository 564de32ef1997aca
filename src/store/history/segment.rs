//! Segments: Parquet files that are written once, sorted by time.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::Schema;
use bytes::Bytes;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::PageIndexPolicy;
use parquet::file::reader::{ChunkReader, Length};
use serde::{Deserialize, Serialize};

use super::footer::Footer;
use super::guard::guarded;
use super::rollup::{self, ROLLUP_KEY, Rolled, Rollup};
use super::schema::{Column, VERSION, VERSION_KEY};
use super::{MAX_CHANGE, lock};
use crate::event::ConnectionId;
use crate::store::archive::Rows;
use crate::store::matcher::Selection;
use crate::store::segment::Range;

/// Under which key of a file's metadata its [`Facts`] stand.
pub(super) const FACTS_KEY: &str = "netspy.segment";

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
    /// How many rows have each of these names; files of before that do not say.
    #[serde(default)]
    pub(super) name_rows: Option<Vec<u32>>,
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
            && self.name_rows.as_ref().is_none_or(|rows| {
                let sum: u64 = rows.iter().map(|rows| u64::from(*rows)).sum();
                sum <= self.rows.into()
                    && self.names.as_ref().is_some_and(|n| n.len() == rows.len())
            })
    }

    /// How many rows have a process of one of these names, whether hidden or not. `None` if that is not
    /// known: because there are too many names, or since a thread or an executable has one of them.
    pub(super) fn rows_named(&self, names: &[String]) -> Option<u64> {
        let place =
            |known: &[Box<str>], name: &String| known.binary_search_by(|k| (**k).cmp(name)).ok();
        let (known, rows) = (self.names.as_deref()?, self.name_rows.as_deref()?);
        let others = self.other_names.as_deref()?;
        if names.iter().any(|name| place(others, name).is_some()) {
            return None;
        }
        let mut places: Vec<usize> = names.iter().filter_map(|name| place(known, name)).collect();
        places.sort_unstable();
        places.dedup();
        Some(places.iter().filter_map(|place| rows.get(*place)).map(|rows| u64::from(*rows)).sum())
    }
}

/// Rows that a segment has at most: far more than is ever written. A page of a few bytes may hold any
/// number of rows, which memory would have to hold.
const MAX_ROWS: u32 = 1 << 24;

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
    footer: Footer,
    /// When its attempts began, if the file says so.
    rolled: Option<Rolled>,
    /// Ids and rows of its patches.
    pub(super) patches: Vec<(ConnectionId, u32)>,
    /// Rows of which there are newer versions elsewhere, in order.
    hidden: RwLock<Arc<Vec<u32>>>,
    unreadable: AtomicBool,
    /// Somebody else took its file away.
    is_gone: AtomicBool,
    /// Its file goes, or is gone, as was meant.
    let_go: AtomicBool,
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
        let options = ArrowReaderOptions::new().with_offset_index_policy(PageIndexPolicy::Optional);
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
        // Files of before that do not have it.
        let rollup = value(ROLLUP_KEY).and_then(|text| Rollup::of_text(text, &facts));
        let mut segment = Segment {
            number,
            path: path.to_owned(),
            bytes: places.length,
            facts,
            footer: Footer::of(&metadata)?,
            rolled: rollup.map(Rolled::new),
            patches: Vec::new(),
            hidden: RwLock::default(),
            unreadable: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
            let_go: AtomicBool::new(false),
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
        let Some(metadata) = self.footer.of_columns(columns)? else {
            return nothing_of(rows.len());
        };
        let mut builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(places(&self.path)?, metadata)
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

    pub(super) fn rolled(&self) -> Option<&Rolled> {
        self.rolled.as_ref()
    }

    /// When the attempts began whose rows are shown.
    pub(super) fn rollup_of_shown(&self) -> Option<Arc<Rollup>> {
        let read = |rows: &Rows| self.read(&rollup::COUNTED, rows).ok();
        self.rolled()?.without(self.hidden(), read)
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

    /// Its file is about to go.
    pub(super) fn note_let_go(&self) {
        self.let_go.store(true, Ordering::SeqCst);
    }

    /// Says once that it cannot be read. That it is gone is no news where it was let go.
    pub(super) fn complain(&self, error: &SegmentError) {
        if self.let_go.load(Ordering::SeqCst) {
            return;
        }
        let gone = matches!(error, SegmentError::Io(e) if e.kind() == io::ErrorKind::NotFound);
        let known = if gone { &self.is_gone } else { &self.unreadable };
        if !known.swap(true, Ordering::Relaxed) {
            tracing::error!("{}: cannot be read, and is left out: {error}", self.path.display());
        }
    }

    /// Looks whether its file is where it was, and as long.
    pub(super) fn look(&self) {
        match std::fs::metadata(&self.path) {
            Ok(file) if file.is_file() && file.len() != self.bytes => {
                self.complain(&SegmentError::Foreign("it is not as long as it was written"));
            }
            Ok(_) => self.is_gone.store(false, Ordering::Relaxed),
            Err(error) => self.complain(&error.into()),
        }
    }

    pub(super) fn is_unreadable(&self) -> bool {
        self.unreadable.load(Ordering::Relaxed) || self.is_gone.load(Ordering::Relaxed)
    }
}

/// So many rows of no columns.
fn nothing_of(rows: usize) -> Result<RecordBatch, SegmentError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)?)
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
