//! The elements of a command set: found, and written (PS3.7 6.3.1, E.1).

use std::collections::BTreeMap;

use super::{COMMAND_LENGTH_MAX, CommandError};

/// Command Data Set Type (0000,0800) that says that no data set follows.
pub(super) const NO_DATA_SET: u16 = 0x0101;

/// Element numbers in group 0000 (PS3.7 E.1).
pub(super) mod element {
    pub(in super::super) const GROUP_LENGTH: u16 = 0x0000;
    pub(in super::super) const AFFECTED_SOP_CLASS: u16 = 0x0002;
    pub(in super::super) const REQUESTED_SOP_CLASS: u16 = 0x0003;
    pub(in super::super) const COMMAND_FIELD: u16 = 0x0100;
    pub(in super::super) const MESSAGE_ID: u16 = 0x0110;
    pub(in super::super) const MESSAGE_ID_RESPONDED: u16 = 0x0120;
    pub(in super::super) const MOVE_DESTINATION: u16 = 0x0600;
    pub(in super::super) const PRIORITY: u16 = 0x0700;
    pub(in super::super) const DATA_SET_TYPE: u16 = 0x0800;
    pub(in super::super) const STATUS: u16 = 0x0900;
    pub(in super::super) const OFFENDING_ELEMENT: u16 = 0x0901;
    pub(in super::super) const ERROR_COMMENT: u16 = 0x0902;
    pub(in super::super) const ERROR_ID: u16 = 0x0903;
    pub(in super::super) const AFFECTED_SOP_INSTANCE: u16 = 0x1000;
    pub(in super::super) const REQUESTED_SOP_INSTANCE: u16 = 0x1001;
    pub(in super::super) const EVENT_TYPE: u16 = 0x1002;
    pub(in super::super) const ATTRIBUTE_LIST: u16 = 0x1005;
    pub(in super::super) const ACTION_TYPE: u16 = 0x1008;
    pub(in super::super) const REMAINING: u16 = 0x1020;
    pub(in super::super) const COMPLETED: u16 = 0x1021;
    pub(in super::super) const FAILED: u16 = 0x1022;
    pub(in super::super) const WARNING: u16 = 0x1023;
    pub(in super::super) const MOVE_ORIGINATOR_AE: u16 = 0x1030;
    pub(in super::super) const MOVE_ORIGINATOR_ID: u16 = 0x1031;
}

pub(super) fn missing(element: u16) -> CommandError {
    CommandError::Missing(element)
}

/// The elements of a command set, values as they stand.
pub(super) struct Elements<'a>(BTreeMap<u16, &'a [u8]>);

impl<'a> Elements<'a> {
    pub(super) fn read(mut bytes: &'a [u8]) -> Result<Self, CommandError> {
        if bytes.len() > COMMAND_LENGTH_MAX {
            return Err(CommandError::TooLong);
        }
        let mut elements = BTreeMap::new();
        while !bytes.is_empty() {
            let (head, rest) = bytes.split_first_chunk::<8>().ok_or(CommandError::Truncated)?;
            let [g0, g1, e0, e1, l0, l1, l2, l3] = *head;
            let group = u16::from_le_bytes([g0, g1]);
            if group != 0 {
                return Err(CommandError::ForeignGroup(group));
            }
            let length = u32::from_le_bytes([l0, l1, l2, l3]);
            let length = usize::try_from(length).map_err(|_| CommandError::Truncated)?;
            let (value, rest) = rest.split_at_checked(length).ok_or(CommandError::Truncated)?;
            elements.entry(u16::from_le_bytes([e0, e1])).or_insert(value);
            bytes = rest;
        }
        Ok(Self(elements))
    }

    /// A number; an empty value counts as absent.
    pub(super) fn us(&self, element: u16) -> Result<Option<u16>, CommandError> {
        match self.0.get(&element) {
            None | Some([]) => Ok(None),
            Some([low, high]) => Ok(Some(u16::from_le_bytes([*low, *high]))),
            Some(_) => Err(CommandError::WrongLength(element)),
        }
    }

    pub(super) fn text(&self, element: u16) -> String {
        let value = self.0.get(&element).copied().unwrap_or_default();
        String::from_utf8_lossy(value).trim_matches(['\0', ' ']).to_owned()
    }

    pub(super) fn either(&self, first: u16, second: u16) -> String {
        let text = self.text(first);
        if text.is_empty() { self.text(second) } else { text }
    }

    pub(super) fn tags(&self, element: u16) -> Vec<(u16, u16)> {
        let value = self.0.get(&element).copied().unwrap_or_default();
        let (tags, _) = value.as_chunks::<4>();
        tags.iter()
            .map(|[a, b, c, d]| (u16::from_le_bytes([*a, *b]), u16::from_le_bytes([*c, *d])))
            .collect()
    }

    pub(super) fn move_originator(&self) -> Result<Option<(String, u16)>, CommandError> {
        let ae = self.text(element::MOVE_ORIGINATOR_AE);
        let id = self.us(element::MOVE_ORIGINATOR_ID)?.unwrap_or(0);
        Ok((!ae.is_empty()).then_some((ae, id)))
    }
}

/// Writes elements in the order of the calls, which must ascend.
#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    fn element(&mut self, element: u16, value: &[u8], pad: u8) {
        let odd = value.len() % 2;
        let length = u32::try_from(value.len() + odd).expect("command values are short");
        self.0.extend_from_slice(&[0, 0]);
        self.0.extend_from_slice(&element.to_le_bytes());
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(value);
        self.0.extend(std::iter::repeat_n(pad, odd));
    }

    pub(super) fn us(&mut self, element: u16, value: u16) {
        self.element(element, &value.to_le_bytes(), 0);
    }

    pub(super) fn text(&mut self, element: u16, value: &str, pad: u8) {
        if !value.is_empty() {
            self.element(element, value.as_bytes(), pad);
        }
    }

    pub(super) fn uid(&mut self, element: u16, value: &str) {
        self.text(element, value, 0);
    }

    pub(super) fn tags(&mut self, element: u16, tags: &[(u16, u16)]) {
        let value: Vec<u8> =
            tags.iter().flat_map(|(g, e)| [g.to_le_bytes(), e.to_le_bytes()]).flatten().collect();
        if !value.is_empty() {
            self.element(element, &value, 0);
        }
    }

    pub(super) fn data_set(&mut self, follows: bool) {
        self.us(element::DATA_SET_TYPE, if follows { 0 } else { NO_DATA_SET });
    }

    pub(super) fn finish(self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).expect("command sets are short");
        let mut whole = Self(Vec::with_capacity(self.0.len() + 12));
        whole.element(element::GROUP_LENGTH, &length.to_le_bytes(), 0);
        whole.0.extend_from_slice(&self.0);
        whole.0
    }
}
