//! Who listens to the stream, and what becomes of those who read too slowly.

use std::sync::{Arc, Mutex, PoisonError};

use plimsoll_common::ids::GpuUuid;
use tokio::sync::mpsc;

/// How many may listen at once.
pub(crate) const MAX_SUBSCRIBERS: usize = 32;
/// How many messages may wait for one reader; a reader that is further behind is let go.
pub(crate) const BACKLOG: usize = 32;

/// One message: its event name and its JSON, shared among all who get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) event: &'static str,
    pub(super) data: Arc<str>,
}

/// The listeners.
#[derive(Debug, Default)]
pub(crate) struct Hub(Mutex<Listeners>);

#[derive(Debug, Default)]
struct Listeners {
    subscribers: Vec<Subscriber>,
    closed: bool,
    totals: Totals,
}

#[derive(Debug)]
struct Subscriber {
    only: Option<GpuUuid>,
    messages: mpsc::Sender<Message>,
}

/// What happened on the stream since the agent started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Who listens now.
    pub(crate) subscribers: usize,
    /// Readers let go because they read too slowly.
    pub(crate) dropped: u64,
    /// Readers turned away because there were too many.
    pub(crate) refused: u64,
}

/// Why nobody more can listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// There are [`MAX_SUBSCRIBERS`] already.
    Full,
    /// The agent stops.
    Stopping,
}

impl Hub {
    /// A new listener, who first gets `first`.
    pub(super) fn subscribe(
        &self,
        only: Option<GpuUuid>,
        first: Message,
    ) -> Result<mpsc::Receiver<Message>, Refused> {
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if listeners.closed {
            return Err(Refused::Stopping);
        }
        listeners.subscribers.retain(|subscriber| !subscriber.messages.is_closed());
        if listeners.subscribers.len() >= MAX_SUBSCRIBERS {
            listeners.totals.refused += 1;
            return Err(Refused::Full);
        }
        let (messages, receiver) = mpsc::channel(BACKLOG);
        // The channel is empty and holds more than one.
        let _ = messages.try_send(first);
        listeners.subscribers.push(Subscriber { only, messages });
        Ok(receiver)
    }

    /// Which GPUs are listened to: each filter once, `None` for all GPUs.
    pub(super) fn filters(&self) -> Vec<Option<GpuUuid>> {
        let listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut filters: Vec<_> = listeners.subscribers.iter().map(|it| it.only.clone()).collect();
        filters.sort();
        filters.dedup();
        filters
    }

    /// Hands messages to everybody with this filter.
    pub(super) fn publish(&self, filter: Option<&GpuUuid>, messages: &[Message]) {
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut dropped = 0;
        listeners.subscribers.retain(|subscriber| {
            if subscriber.only.as_ref() != filter {
                return true;
            }
            messages.iter().all(|message| match subscriber.messages.try_send(message.clone()) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Closed(_)) => false,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    dropped += 1;
                    false
                }
            })
        });
        listeners.totals.dropped += dropped;
    }

    /// Lets everybody go; nobody can listen any more.
    pub(super) fn close(&self) {
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.closed = true;
        listeners.subscribers.clear();
    }

    /// What happened so far.
    pub(crate) fn totals(&self) -> Totals {
        let listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = |subscriber: &&Subscriber| !subscriber.messages.is_closed();
        Totals { subscribers: listeners.subscribers.iter().filter(open).count(), ..listeners.totals }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(data: &str) -> Message {
        Message { event: "gpus", data: data.into() }
    }

    #[test]
    fn a_reader_that_does_not_read_is_let_go_and_counted_and_the_others_stay() {
        let hub = Hub::default();
        let slow = hub.subscribe(None, message("first")).unwrap();
        let mut quick = hub.subscribe(None, message("first")).unwrap();
        for n in 0..BACKLOG {
            hub.publish(None, &[message(&n.to_string())]);
            while quick.try_recv().is_ok() {}
        }
        assert_eq!(hub.totals(), Totals { subscribers: 1, dropped: 1, refused: 0 });
        assert_eq!(slow.len(), BACKLOG, "what was queued can still be read");
        hub.publish(None, &[message("last")]);
        assert_eq!(quick.try_recv().unwrap().data.as_ref(), "last");
    }

    #[test]
    fn readers_who_left_free_their_places() {
        let hub = Hub::default();
        let all: Vec<_> = (0..MAX_SUBSCRIBERS).map(|_| hub.subscribe(None, message("")).unwrap()).collect();
        assert_eq!(hub.subscribe(None, message("")).unwrap_err(), Refused::Full);
        drop(all);
        assert!(hub.subscribe(None, message("")).is_ok());
        assert_eq!(hub.totals(), Totals { subscribers: 0, dropped: 0, refused: 1 });
    }

    #[test]
    fn a_filter_gets_its_own_messages_only() {
        let hub = Hub::default();
        let gpu = GpuUuid::parse("GPU-1").unwrap();
        let mut one = hub.subscribe(Some(gpu.clone()), message("first")).unwrap();
        hub.publish(None, &[message("all")]);
        hub.publish(Some(&gpu), &[message("one")]);
        assert_eq!(hub.filters(), [Some(gpu)]);
        assert_eq!(one.try_recv().unwrap().data.as_ref(), "first");
        assert_eq!(one.try_recv().unwrap().data.as_ref(), "one");
        assert!(one.try_recv().is_err());
    }

    #[test]
    fn closing_ends_every_stream() {
        let hub = Hub::default();
        let mut reader = hub.subscribe(None, message("first")).unwrap();
        hub.close();
        assert!(reader.try_recv().is_ok());
        assert_eq!(reader.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
        assert_eq!(hub.subscribe(None, message("")).unwrap_err(), Refused::Stopping);
    }
}
