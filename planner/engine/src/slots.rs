//! Where requests live while the engine holds them.

use plimsoll_common::units::Micros;

use crate::request::{Request, RequestFacts, RequestId};

/// A place in [`Slots`], with the serial number of its tenant: a stale one is recognised, however often the place has
/// been let since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotRef {
    pub(crate) place: u32,
    pub(crate) serial: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nobody's, and on the free list.
    Vacant,
    Waiting,
    Running,
    /// Out of every list, about to become vacant.
    Done,
}

/// One request's progress. Iterations pass over all running sequences: what each of them reads and writes comes first and
/// fills one cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Slot {
    pub(crate) serial: u64,
    pub(crate) request: Request,
    /// Tokens whose keys and values are in the cache.
    pub(crate) computed: u32,
    /// Tokens generated.
    pub(crate) emitted: u32,
    /// KV blocks held.
    pub(crate) blocks: u32,
    pub(crate) state: State,
    pub(crate) last_token: Option<Micros>,
    pub(crate) first_token: Option<Micros>,
    pub(crate) first_scheduled: Option<Micros>,
    pub(crate) arrival: Micros,
    pub(crate) prefilled: u64,
    pub(crate) preemptions: u32,
    /// Where it is a member of the cohort: the cohort's iterations when it was up to date.
    pub(crate) joined: u64,
}

impl Slot {
    /// Tokens that are known: the prompt and what has been generated. The model computes from `computed` up to here,
    /// and on reaching it generates one more.
    pub(crate) const fn known(&self) -> u32 {
        self.request.prompt_tokens + self.emitted
    }

    /// Known tokens that need no computing when it is admitted: a prefix hit, or, as long as they have not been taken
    /// away, the keys and values that another engine computed.
    pub(crate) const fn given(&self) -> u32 {
        if self.request.prefilled && self.preemptions == 0 {
            self.request.prompt_tokens
        } else {
            self.request.cached_tokens
        }
    }

    /// Known tokens that are still to be computed; at least 1 while the request lives.
    pub(crate) const fn remaining(&self) -> u32 {
        self.known() - self.computed
    }

    /// Whether its next iteration is a decode: one token, after the first has come out.
    pub(crate) const fn decodes(&self) -> bool {
        self.emitted > 0 && self.remaining() == 1
    }

    pub(crate) const fn facts(&self, ended: Micros) -> RequestFacts {
        RequestFacts {
            id: self.request.id,
            prompt_tokens: self.request.prompt_tokens,
            output_tokens: self.request.output_tokens,
            emitted_tokens: self.emitted,
            cached_tokens: self.request.cached_tokens,
            arrival: self.arrival,
            first_scheduled: self.first_scheduled,
            first_token: self.first_token,
            last_token: self.last_token,
            ended,
            preemptions: self.preemptions,
            prefilled_tokens: self.prefilled,
        }
    }
}

/// Requests by place. Places are reused; the memory is the most that were held at once.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    vacant: Vec<u32>,
    next_serial: u64,
}

impl Slots {
    pub(crate) fn insert(&mut self, request: Request, arrival: Micros) -> SlotRef {
        let serial = self.next_serial;
        self.next_serial += 1;
        let slot = Slot {
            serial,
            state: State::Waiting,
            request,
            computed: 0,
            emitted: u32::from(request.prefilled),
            blocks: 0,
            preemptions: 0,
            joined: 0,
            prefilled: 0,
            arrival,
            first_scheduled: None,
            first_token: None,
            last_token: None,
        };
        let place = if let Some(place) = self.vacant.pop() {
            self.slots[place as usize] = slot;
            place
        } else {
            self.slots.push(slot);
            (self.slots.len() - 1) as u32
        };
        SlotRef { place, serial }
    }

    pub(crate) fn get(&self, place: u32) -> &Slot {
        &self.slots[place as usize]
    }

    pub(crate) fn get_mut(&mut self, place: u32) -> &mut Slot {
        &mut self.slots[place as usize]
    }

    /// Whether the tenant that `slot` speaks of is still there and in `state`.
    pub(crate) fn is(&self, slot: SlotRef, state: State) -> bool {
        let tenant = self.get(slot.place);
        tenant.serial == slot.serial && tenant.state == state
    }

    pub(crate) fn vacate(&mut self, place: u32) {
        let slot = self.get_mut(place);
        debug_assert!(slot.state != State::Vacant, "a place was vacated twice");
        slot.state = State::Vacant;
        slot.request.id = RequestId(u64::MAX);
        self.vacant.push(place);
    }
}
