//! The columns of the files: one row per version of a record, the same in journals and segments.
//! docs/history.md describes them for other tools.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// Version of the files. A change of the columns that a reader has to know of is a new one; columns
/// that are missing read as null, and unknown ones are left alone.
pub(super) const VERSION: u32 = 1;
/// Under which key of a file's metadata its version stands.
pub(super) const VERSION_KEY: &str = "netspy.version";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Time,
    U64,
    U32,
    U16,
    I32,
    Bool,
    /// Text that many rows share.
    Shared,
    /// Text of its own.
    Text,
}

impl Kind {
    pub(super) fn data_type(self) -> DataType {
        match self {
            Kind::Time => DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
            Kind::U64 => DataType::UInt64,
            Kind::U32 => DataType::UInt32,
            Kind::U16 => DataType::UInt16,
            Kind::I32 => DataType::Int32,
            Kind::Bool => DataType::Boolean,
            Kind::Shared => {
                DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
            }
            Kind::Text => DataType::Utf8,
        }
    }
}

macro_rules! columns {
    ($($column:ident $name:literal $kind:ident $null:ident),+ $(,)?) => {
        /// A column, numbered as it stands in the files that are written now.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Column { $($column),+ }

        impl Column {
            pub(super) const ALL: &[Column] = &[$(Column::$column),+];

            pub(super) fn name(self) -> &'static str {
                match self { $(Column::$column => $name),+ }
            }

            pub(super) fn kind(self) -> Kind {
                match self { $(Column::$column => Kind::$kind),+ }
            }

            pub(super) fn is_optional(self) -> bool {
                match self { $(Column::$column => columns!(@ $null)),+ }
            }
        }
    };
    (@ always) => { false };
    (@ maybe) => { true };
}

columns! {
    Time "time" Time always,
    StartNs "id_start_ns" U64 always,
    IdTid "id_tid" U32 always,
    Boot "id_boot" U32 always,
    Version "version" U64 always,
    Patch "patch" Bool always,
    Host "host" Shared always,
    Direction "direction" Shared always,
    Protocol "protocol" Shared always,
    SocketType "socket_type" Shared always,
    Family "family" Shared always,
    State "state" Shared always,
    Outcome "outcome" Shared always,
    Evidence "evidence" Shared maybe,
    Preexisting "preexisting" Bool always,
    LocalIp "local_ip" Shared maybe,
    LocalPort "local_port" U16 maybe,
    RemoteIp "remote_ip" Shared maybe,
    RemotePort "remote_port" U16 maybe,
    RemoteName "remote_name" Shared maybe,
    NameSource "name_source" Shared maybe,
    Service "service" Shared maybe,
    Path "path" Shared maybe,
    Pid "pid" U32 maybe,
    Tid "tid" U32 maybe,
    Process "process" Shared maybe,
    Thread "thread" Shared maybe,
    Exe "exe" Shared maybe,
    ExeDeleted "exe_deleted" Bool maybe,
    Cmdline "cmdline" Shared maybe,
    Unit "unit" Shared maybe,
    Uid "uid" U32 maybe,
    User "user" Shared maybe,
    Ppid "ppid" U32 maybe,
    Parent "parent" Shared maybe,
    Ancestry "ancestry" Shared maybe,
    StartTime "process_start" Time maybe,
    Cgroup "cgroup" Shared maybe,
    Netns "netns" U32 maybe,
    ContainerId "container_id" Shared maybe,
    ContainerRuntime "container_runtime" Shared maybe,
    ContainerName "container_name" Shared maybe,
    Pod "pod" Shared maybe,
    PodNamespace "pod_namespace" Shared maybe,
    PodUid "pod_uid" Shared maybe,
    ContainerImage "container_image" Shared maybe,
    ContainerLabels "container_labels" Shared maybe,
    Errno "errno" I32 maybe,
    Error "error" Shared maybe,
    Latency "latency_us" U64 maybe,
    SynRetransmits "syn_retransmits" U32 maybe,
    DropReason "drop_reason" Shared maybe,
    DropCount "drop_count" U64 maybe,
    CloseTime "close_time" Time maybe,
    Duration "duration_us" U64 maybe,
    BytesSent "bytes_sent" U64 maybe,
    BytesReceived "bytes_received" U64 maybe,
    DatagramsSent "datagrams_sent" U64 maybe,
    Retransmits "retransmits" U32 maybe,
    Srtt "srtt_us" U32 maybe,
    CloseReason "close_reason" Shared maybe,
    ExeDev "exe_dev" U64 maybe,
    ExeInode "exe_inode" U64 maybe,
    ExeSha256 "exe_sha256" Shared maybe,
    Cwd "cwd" Shared maybe,
    RemoteScope "remote_scope" Shared maybe,
    RemoteCountry "remote_country" Shared maybe,
    RemoteAsn "remote_asn" U32 maybe,
    RemoteAsName "remote_as_name" Shared maybe,
    NameTime "name_time" Time maybe,
    ActualIp "remote_actual_ip" Shared maybe,
    ActualPort "remote_actual_port" U16 maybe,
    Whole "record" Text maybe,
}

/// Columns that the first files of this version had not.
const ADDED: [Column; 14] = [
    Column::PodUid,
    Column::ContainerImage,
    Column::ContainerLabels,
    Column::ExeDev,
    Column::ExeInode,
    Column::ExeSha256,
    Column::Cwd,
    Column::RemoteScope,
    Column::RemoteCountry,
    Column::RemoteAsn,
    Column::RemoteAsName,
    Column::NameTime,
    Column::ActualIp,
    Column::ActualPort,
];

/// The schema of the files that are written now.
pub(super) fn schema() -> SchemaRef {
    static SCHEMA: OnceLock<SchemaRef> = OnceLock::new();
    Arc::clone(SCHEMA.get_or_init(|| schema_of(|_| true)))
}

/// That of the first files of this version.
pub(super) fn first_schema() -> SchemaRef {
    schema_of(|column| !ADDED.contains(column))
}

fn schema_of(is_meant: impl Fn(&Column) -> bool) -> SchemaRef {
    let field = |c: &Column| Field::new(c.name(), c.kind().data_type(), c.is_optional());
    let columns = Column::ALL.iter().filter(|column| is_meant(column));
    let version = HashMap::from([(VERSION_KEY.to_owned(), VERSION.to_string())]);
    Arc::new(Schema::new_with_metadata(columns.map(field).collect::<Vec<_>>(), version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_has_its_own_number() {
        for (number, column) in Column::ALL.iter().enumerate() {
            assert_eq!(*column as usize, number);
            assert_eq!(schema().field(number).name(), column.name());
        }
    }
}
