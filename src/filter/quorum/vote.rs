//! Who agrees with whom.

use crate::error::Error;
use crate::memory::IoBuf;

/// What some children read a range as.
#[derive(Default)]
pub(super) struct Version {
    /// The bytes.
    pub(super) bytes: IoBuf,
    /// The places of the children that read them.
    pub(super) voters: Vec<usize>,
}

/// All that a range reads as.
#[derive(Default)]
pub(super) struct Poll {
    /// Each version once, in the order in which they were met.
    pub(super) versions: Vec<Version>,
    /// What kept the other children from voting.
    pub(super) errors: Vec<Error>,
}

impl Poll {
    /// Takes what a child read; gives the memory back for the next one where the version was known already.
    pub(super) fn count(&mut self, voter: usize, bytes: IoBuf) -> IoBuf {
        let known = self
            .versions
            .iter_mut()
            .find(|version| *version.bytes == *bytes);
        match known {
            Some(known) => {
                known.voters.push(voter);
                bytes
            }
            None => {
                self.versions.push(Version {
                    bytes,
                    voters: vec![voter],
                });
                IoBuf::new()
            }
        }
    }

    /// The place of the version with the most votes; of several, the one that was met last.
    pub(super) fn winner(&self) -> Option<usize> {
        let versions = self.versions.iter().enumerate();
        let most = versions.max_by_key(|(_, version)| version.voters.len());
        most.map(|(place, _)| place)
    }
}

/// The most frequent error, by errno; of several, the last.
pub(super) fn most_common(errors: Vec<Error>) -> Option<Error> {
    let same = |error: &Error| {
        let alike = errors.iter().filter(|one| one.errno() == error.errno());
        alike.count()
    };
    let counts: Vec<usize> = errors.iter().map(same).collect();
    let (place, _) = counts.iter().enumerate().max_by_key(|(_, count)| **count)?;
    errors.into_iter().nth(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(byte: u8) -> IoBuf {
        let mut bytes = IoBuf::new();
        bytes.room(16).unwrap().fill(byte);
        bytes
    }

    #[test]
    fn the_most_votes_win_and_the_last_of_as_many() {
        for (votes, won) in [
            (&[1, 1, 2][..], 1),
            (&[1, 2, 2], 2),
            (&[1, 2], 2),
            (&[2, 1, 1, 2], 1),
            (&[1, 2, 3, 1], 1),
        ] {
            let mut poll = Poll::default();
            for (voter, vote) in votes.iter().enumerate() {
                poll.count(voter, bytes(*vote));
            }
            let winner = poll.winner().unwrap();
            assert_eq!(poll.versions[winner].bytes[0], won, "{votes:?}");
        }
        assert_eq!(Poll::default().winner(), None);
    }

    #[test]
    fn the_error_of_most_counts() {
        for (errnos, reported) in [
            (&[libc::EIO, libc::ENOSPC][..], libc::ENOSPC),
            (&[libc::ENOSPC, libc::EIO], libc::EIO),
            (&[libc::EIO, libc::ENOSPC, libc::EIO], libc::EIO),
        ] {
            let errors = errnos.iter().map(|errno| Error::os(*errno)).collect();
            assert_eq!(most_common(errors).unwrap().errno(), reported);
        }
    }
}
