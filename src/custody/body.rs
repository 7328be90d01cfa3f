//! Bodies on their way out: read from the spool, verified against their digest.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use crate::cargo::{Hasher, Sha256};

/// Where the bytes of a piece of cargo are.
#[derive(Debug, Clone)]
pub struct Body {
    file: Arc<File>,
    offset: u64,
    len: u64,
    sha256: Sha256,
}

/// Why a body cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The bytes on the disk are not those that were accepted, or the disk does not give them
    /// back: quarantine.
    #[error("the stored bytes are damaged: {0}")]
    Damaged(String),
}

impl BodyError {
    fn unreadable(e: io::Error) -> Self {
        Self::Damaged(format!("reading the spool failed: {e}"))
    }
}

impl Body {
    pub(super) fn new(file: Arc<File>, offset: u64, len: u64, sha256: Sha256) -> Self {
        Self { file, offset, len, sha256 }
    }

    /// Length in bytes.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// True for a body without bytes.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All bytes, verified. For bodies that fit in memory.
    pub async fn read(&self) -> Result<Bytes, BodyError> {
        let body = self.clone();
        let read = move || {
            let len = usize::try_from(body.len).map_err(io::Error::other);
            let mut bytes = vec![0; len.map_err(BodyError::unreadable)?];
            body.file.read_exact_at(&mut bytes, body.offset).map_err(BodyError::unreadable)?;
            match Sha256::of(&bytes) == body.sha256 {
                true => Ok(Bytes::from(bytes)),
                false => Err(mismatch()),
            }
        };
        blocking(read).await
    }

    /// Reads on from byte `from`. With `from == 0` the digest is verified before the last chunk is
    /// given out, so that a damaged body is never passed on whole; from elsewhere the receiver's
    /// check of the whole must do.
    pub fn reader(&self, from: u64) -> BodyReader {
        let hasher = (from == 0).then(Hasher::new);
        BodyReader { body: self.clone(), at: from.min(self.len), hasher }
    }
}

fn mismatch() -> BodyError {
    BodyError::Damaged("their SHA-256 is not the one they were accepted with".into())
}

async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> Result<T, BodyError> + Send + 'static,
) -> Result<T, BodyError> {
    tokio::task::spawn_blocking(f)
        .await
        .unwrap_or_else(|e| Err(BodyError::Damaged(format!("reading the spool failed: {e}"))))
}

/// Gives a body out in chunks.
#[derive(Debug)]
pub struct BodyReader {
    body: Body,
    at: u64,
    hasher: Option<Hasher>,
}

impl BodyReader {
    /// The next at most `max` bytes; `None` at the end.
    pub async fn next(&mut self, max: usize) -> Result<Option<Bytes>, BodyError> {
        let left = self.body.len - self.at;
        if left == 0 {
            return Ok(None);
        }
        let n = usize::try_from(left).unwrap_or(max).min(max.max(1));
        let (file, offset) = (self.body.file.clone(), self.body.offset + self.at);
        let mut hasher = self.hasher.take();
        let (bytes, hasher) = blocking(move || {
            let mut bytes = vec![0; n];
            file.read_exact_at(&mut bytes, offset).map_err(BodyError::unreadable)?;
            if let Some(hasher) = &mut hasher {
                hasher.update(&bytes);
            }
            Ok((Bytes::from(bytes), hasher))
        })
        .await?;
        self.at += n as u64;
        self.hasher = hasher;
        if self.at == self.body.len
            && let Some(hasher) = self.hasher.take()
            && hasher.finish() != self.body.sha256
        {
            return Err(mismatch());
        }
        Ok(Some(bytes))
    }
}
