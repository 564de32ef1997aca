//! Columns of which many rows have the same: each value once, and its number for each row.

use std::net::IpAddr;
use std::sync::Arc;

use arrow_array::types::{
    ArrowPrimitiveType, Int32Type, TimestampNanosecondType, UInt32Type, UInt64Type,
};
use arrow_array::{ArrayRef, DictionaryArray, Int32Array, PrimitiveArray, StringArray};
use arrow_buffer::{BooleanBuffer, NullBuffer};
use arrow_schema::ArrowError;
use foldhash::HashMap;
use strum::VariantArray;

use crate::event::ProcessInfo;
use crate::store::history::schema::Column;
use crate::store::row::nanos;

/// Text with numbers, each once.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) keys: Vec<i32>,
    values: Vec<Box<str>>,
    numbers: HashMap<Box<str>, i32>,
    last: usize,
}

pub(super) const NULL: i32 = -1;

impl Shared {
    pub(super) fn with_capacity(rows: usize) -> Self {
        Shared { keys: Vec::with_capacity(rows), ..Shared::default() }
    }

    pub(super) fn push(&mut self, text: Option<&str>) {
        let key = text.map_or(NULL, |text| self.number(text));
        self.keys.push(key);
    }

    pub(super) fn number(&mut self, text: &str) -> i32 {
        if self.values.get(self.last).is_some_and(|last| **last == *text) {
            return self.last as i32;
        }
        let number = match self.numbers.get(text) {
            Some(number) => *number,
            None => {
                let number = self.values.len() as i32;
                self.values.push(text.into());
                self.numbers.insert(text.into(), number);
                number
            }
        };
        self.last = number as usize;
        number
    }

    pub(super) fn finish(self) -> Result<ArrayRef, ArrowError> {
        dictionary(self.keys, StringArray::from_iter_values(self.values))
    }
}

fn dictionary(keys: Vec<i32>, values: StringArray) -> Result<ArrayRef, ArrowError> {
    let has_key = |row: usize| keys.get(row).is_some_and(|key| *key != NULL);
    let nulls = keys.contains(&NULL).then(|| BooleanBuffer::collect_bool(keys.len(), has_key));
    let keys = Int32Array::try_new(keys.into(), nulls.map(NullBuffer::new))?;
    Ok(Arc::new(DictionaryArray::<Int32Type>::try_new(keys, Arc::new(values))?))
}

/// Addresses as text, written once for each.
#[derive(Default)]
pub(super) struct Addresses {
    keys: Vec<i32>,
    values: Vec<IpAddr>,
    numbers: HashMap<IpAddr, i32>,
}

impl Addresses {
    pub(super) fn with_capacity(rows: usize) -> Self {
        Addresses { keys: Vec::with_capacity(rows), ..Addresses::default() }
    }

    pub(super) fn push(&mut self, ip: Option<IpAddr>) {
        let Some(ip) = ip else { return self.keys.push(NULL) };
        let last = self.keys.last().copied().filter(|last| *last != NULL);
        let key = match last.filter(|last| self.values.get(*last as usize) == Some(&ip)) {
            Some(last) => last,
            None => *self.numbers.entry(ip).or_insert_with(|| {
                self.values.push(ip);
                self.values.len() as i32 - 1
            }),
        };
        self.keys.push(key);
    }

    pub(super) fn finish(self) -> Result<ArrayRef, ArrowError> {
        let texts = self.values.iter().map(IpAddr::to_string);
        dictionary(self.keys, StringArray::from_iter_values(texts))
    }
}

/// Members of an enumeration, by number.
pub(super) struct Words<T> {
    keys: Vec<i32>,
    words: std::marker::PhantomData<T>,
}

impl<T> Default for Words<T> {
    fn default() -> Self {
        Words { keys: Vec::new(), words: std::marker::PhantomData }
    }
}

impl<T: VariantArray + Copy + PartialEq + Into<&'static str>> Words<T> {
    pub(super) fn with_capacity(rows: usize) -> Self {
        Words { keys: Vec::with_capacity(rows), ..Words::default() }
    }

    pub(super) fn push(&mut self, number: Option<usize>) {
        self.keys.push(number.map_or(NULL, |number| number as i32));
    }

    pub(super) fn finish(self) -> Result<ArrayRef, ArrowError> {
        let words = T::VARIANTS.iter().map(|word| -> &'static str { (*word).into() });
        dictionary(self.keys, StringArray::from_iter_values(words))
    }
}

/// Which process each row is of: what they say is worked out once per process.
#[derive(Default)]
pub(super) struct Processes {
    pub(super) rows: Vec<i32>,
    pub(super) list: Vec<Arc<ProcessInfo>>,
    /// By address, which `list` keeps from being used anew.
    numbers: HashMap<*const ProcessInfo, i32>,
}

impl Processes {
    pub(super) fn with_capacity(rows: usize) -> Self {
        Processes { rows: Vec::with_capacity(rows), ..Processes::default() }
    }

    pub(super) fn push(&mut self, info: Option<&Arc<ProcessInfo>>) {
        let Some(info) = info else { return self.rows.push(NULL) };
        let last = self.rows.last().copied().filter(|last| *last != NULL);
        let is_last = |last: &i32| {
            self.list.get(*last as usize).is_some_and(|known| Arc::ptr_eq(known, info))
        };
        let number = match last.filter(is_last) {
            Some(last) => last,
            None => *self.numbers.entry(Arc::as_ptr(info)).or_insert_with(|| {
                self.list.push(Arc::clone(info));
                self.list.len() as i32 - 1
            }),
        };
        self.rows.push(number);
    }

    fn spread<T: Copy>(&self, values: &[T], none: T) -> Vec<T> {
        self.rows.iter().map(|row| values.get(*row as usize).copied().unwrap_or(none)).collect()
    }

    fn text(
        &self,
        text: impl for<'a> Fn(&'a ProcessInfo) -> Option<std::borrow::Cow<'a, str>>,
    ) -> Result<ArrayRef, ArrowError> {
        let mut shared = Shared::default();
        for info in &self.list {
            shared.push(text(info).as_deref());
        }
        shared.keys = self.spread(&shared.keys, NULL);
        shared.finish()
    }

    fn number<T: ArrowPrimitiveType>(
        &self,
        number: impl Fn(&ProcessInfo) -> Option<T::Native>,
    ) -> PrimitiveArray<T> {
        let values: Vec<_> = self.list.iter().map(|info| number(info)).collect();
        self.spread(&values, None).into_iter().collect()
    }

    fn flag(&self, flag: impl Fn(&ProcessInfo) -> bool) -> ArrayRef {
        let values: Vec<_> = self.list.iter().map(|info| Some(flag(info))).collect();
        Arc::new(arrow_array::BooleanArray::from(self.spread(&values, None)))
    }

    /// The columns that say something of processes.
    pub(super) fn columns(&self, put: &mut impl FnMut(Column, ArrayRef)) -> Result<(), ArrowError> {
        type Text = fn(&ProcessInfo) -> Option<std::borrow::Cow<'_, str>>;
        let texts: [(Column, Text); 18] = [
            (Column::Process, |p| Some((&*p.comm).into())),
            (Column::Exe, |p| p.exe.as_deref().map(Into::into)),
            (Column::ExeSha256, |p| p.exe_sha256.as_deref().map(Into::into)),
            (Column::Cmdline, |p| p.cmdline.as_deref().map(Into::into)),
            (Column::Cwd, |p| p.cwd.as_deref().map(Into::into)),
            (Column::Unit, |p| p.unit.as_deref().map(Into::into)),
            (Column::User, |p| p.user.as_deref().map(Into::into)),
            (Column::Parent, |p| p.parent.as_deref().map(Into::into)),
            (Column::Ancestry, |p| serde_json::to_string(&p.ancestry).ok().map(Into::into)),
            (Column::Cgroup, |p| p.cgroup.as_deref().map(Into::into)),
            (Column::ContainerId, |p| p.container.as_deref().map(|c| c.id.as_str().into())),
            (Column::ContainerRuntime, |p| {
                p.container.as_deref().map(|c| c.runtime.as_str().into())
            }),
            (Column::ContainerName, |p| p.container.as_deref()?.name.as_deref().map(Into::into)),
            (Column::Pod, |p| p.container.as_deref()?.pod.as_deref().map(Into::into)),
            (Column::PodNamespace, |p| {
                p.container.as_deref()?.namespace.as_deref().map(Into::into)
            }),
            (Column::PodUid, |p| p.container.as_deref()?.pod_uid.as_deref().map(Into::into)),
            (Column::ContainerImage, |p| p.container.as_deref()?.image.as_deref().map(Into::into)),
            (Column::ContainerLabels, |p| {
                let labels = &p.container.as_deref()?.labels;
                let has_any = (!labels.is_empty()).then_some(labels)?;
                serde_json::to_string(has_any).ok().map(Into::into)
            }),
        ];
        for (column, text) in texts {
            put(column, self.text(text)?);
        }
        put(Column::Pid, Arc::new(self.number::<UInt32Type>(|p| Some(p.pid))));
        put(Column::Uid, Arc::new(self.number::<UInt32Type>(|p| Some(p.uid))));
        put(Column::Ppid, Arc::new(self.number::<UInt32Type>(|p| Some(p.ppid))));
        put(Column::Netns, Arc::new(self.number::<UInt32Type>(|p| Some(p.netns))));
        put(Column::ExeDeleted, self.flag(|p| p.exe_deleted));
        put(Column::ExeDev, Arc::new(self.number::<UInt64Type>(|p| p.exe_dev)));
        put(Column::ExeInode, Arc::new(self.number::<UInt64Type>(|p| p.exe_inode)));
        let start = self.number::<TimestampNanosecondType>(|p| p.start_time.map(nanos));
        put(Column::StartTime, Arc::new(start.with_timezone("UTC")));
        Ok(())
    }
}
