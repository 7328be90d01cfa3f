//! Numbers of the command set: which message it is, and how an operation ended (PS3.7 E.1, C).

/// Command Field values (PS3.7 E.1).
pub mod field {
    /// C-STORE-RQ.
    pub const C_STORE_RQ: u16 = 0x0001;
    /// C-STORE-RSP.
    pub const C_STORE_RSP: u16 = 0x8001;
    /// C-ECHO-RQ.
    pub const C_ECHO_RQ: u16 = 0x0030;
    /// C-ECHO-RSP.
    pub const C_ECHO_RSP: u16 = 0x8030;
    /// C-GET-RQ.
    pub const C_GET_RQ: u16 = 0x0010;
    /// C-FIND-RQ.
    pub const C_FIND_RQ: u16 = 0x0020;
    /// C-MOVE-RQ.
    pub const C_MOVE_RQ: u16 = 0x0021;
    /// N-EVENT-REPORT-RQ.
    pub const N_EVENT_REPORT_RQ: u16 = 0x0100;
    /// N-SET-RQ.
    pub const N_SET_RQ: u16 = 0x0120;
    /// N-ACTION-RQ.
    pub const N_ACTION_RQ: u16 = 0x0130;
    /// N-CREATE-RQ.
    pub const N_CREATE_RQ: u16 = 0x0140;
    /// C-CANCEL-RQ, the one request that has no answer.
    pub const C_CANCEL_RQ: u16 = 0x0FFF;
    /// The bit that makes a response of a request.
    pub const RESPONSE: u16 = 0x8000;
}

/// Status values (PS3.7 C; PS3.4 B.2.3, C.4, F.7.2, J.3, K.4).
pub mod status {
    /// Success.
    pub const SUCCESS: u16 = 0x0000;
    /// C-STORE warning: kept, with data elements coerced.
    pub const COERCED: u16 = 0xB000;
    /// C-FIND warning: as many matches as the service gives at a time, and there are more.
    pub const LIMIT_REACHED: u16 = 0xB001;
    /// No such attribute.
    pub const NO_SUCH_ATTRIBUTE: u16 = 0x0105;
    /// Invalid attribute value.
    pub const INVALID_ATTRIBUTE_VALUE: u16 = 0x0106;
    /// Processing failure.
    pub const PROCESSING_FAILURE: u16 = 0x0110;
    /// Duplicate SOP instance.
    pub const DUPLICATE_SOP_INSTANCE: u16 = 0x0111;
    /// No such SOP instance.
    pub const NO_SUCH_SOP_INSTANCE: u16 = 0x0112;
    /// No such event type.
    pub const NO_SUCH_EVENT_TYPE: u16 = 0x0113;
    /// Invalid argument value.
    pub const INVALID_ARGUMENT_VALUE: u16 = 0x0115;
    /// Invalid SOP instance: the UID violates the construction rules.
    pub const INVALID_SOP_INSTANCE: u16 = 0x0117;
    /// No such SOP class.
    pub const NO_SUCH_SOP_CLASS: u16 = 0x0118;
    /// Class-instance conflict.
    pub const CLASS_INSTANCE_CONFLICT: u16 = 0x0119;
    /// Missing attribute.
    pub const MISSING_ATTRIBUTE: u16 = 0x0120;
    /// Missing attribute value.
    pub const MISSING_ATTRIBUTE_VALUE: u16 = 0x0121;
    /// SOP class not supported.
    pub const SOP_CLASS_NOT_SUPPORTED: u16 = 0x0122;
    /// No such action type.
    pub const NO_SUCH_ACTION_TYPE: u16 = 0x0123;
    /// Not authorized.
    pub const NOT_AUTHORIZED: u16 = 0x0124;
    /// Duplicate Transaction UID, a Failure Reason of storage commitment (PS3.3 C.14.1.1).
    pub const DUPLICATE_TRANSACTION: u16 = 0x0131;
    /// Duplicate invocation: the message ID is in use.
    pub const DUPLICATE_INVOCATION: u16 = 0x0210;
    /// Unrecognized operation.
    pub const UNRECOGNIZED_OPERATION: u16 = 0x0211;
    /// Mistyped argument.
    pub const MISTYPED_ARGUMENT: u16 = 0x0212;
    /// Resource limitation.
    pub const RESOURCE_LIMITATION: u16 = 0x0213;
    /// C-STORE, C-FIND refused: out of resources.
    pub const OUT_OF_RESOURCES: u16 = 0xA700;
    /// C-MOVE refused: move destination unknown.
    pub const MOVE_DESTINATION_UNKNOWN: u16 = 0xA801;
    /// C-STORE error: data set does not match SOP class (or the command's identifiers); C-FIND
    /// error: identifier does not match SOP class.
    pub const DATA_SET_MISMATCH: u16 = 0xA900;
    /// C-STORE error: cannot understand; C-FIND: unable to process.
    pub const CANNOT_UNDERSTAND: u16 = 0xC000;
    /// Ended by C-CANCEL.
    pub const CANCELLED: u16 = 0xFE00;
    /// More answers follow.
    pub const PENDING: u16 = 0xFF00;
    /// More answers follow, and one or more optional keys are not matched by this service.
    pub const PENDING_KEYS_UNSUPPORTED: u16 = 0xFF01;

    /// Error ID (0000,0903) with 0110H: the performed procedure step is completed or discontinued
    /// and may no longer be updated (PS3.4 F.7.2.2.3).
    pub const ERROR_ID_STEP_IS_FINAL: u16 = 0xA710;

    /// Whether this answer is followed by others to the same request.
    pub const fn is_pending(status: u16) -> bool {
        matches!(status, PENDING | PENDING_KEYS_UNSUPPORTED)
    }
}
