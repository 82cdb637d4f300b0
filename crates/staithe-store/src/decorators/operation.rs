use std::fmt;

/// A method of [`ObjectStore`](crate::ObjectStore) that makes a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each is the method of the same name")]
pub enum Operation {
    Probe,
    Head,
    Get,
    List,
    Put,
    CreateMultipart,
    UploadPart,
    UploadPartCopy,
    CompleteMultipart,
    AbortMultipart,
    ListMultiparts,
    Copy,
    Delete,
    DeleteBatch,
    ListVersions,
}

impl Operation {
    /// How many there are.
    pub const COUNT: usize = 15;

    /// The verb of the port, as errors name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Head => "head",
            Self::Get => "get",
            Self::List => "list",
            Self::Put => "put",
            Self::CreateMultipart => "create_multipart",
            Self::UploadPart => "upload_part",
            Self::UploadPartCopy => "upload_part_copy",
            Self::CompleteMultipart => "complete_multipart",
            Self::AbortMultipart => "abort_multipart",
            Self::ListMultiparts => "list_multiparts",
            Self::Copy => "copy",
            Self::Delete => "delete",
            Self::DeleteBatch => "delete_batch",
            Self::ListVersions => "list_versions",
        }
    }

    /// Whether it can change what the bucket holds.
    pub fn is_mutation(self) -> bool {
        !matches!(
            self,
            Self::Probe | Self::Head | Self::Get | Self::List | Self::ListMultiparts | Self::ListVersions
        )
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
