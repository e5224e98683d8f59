"""UDP multicast for Python at full rate: the public names and the version.

Owns nothing but these names; everything lives in `multicast.skt`, the door to both backends.
Must hold no logic.
"""

__version__ = "0.1.0"

import socket

from . import skt
from .skt import (
    BACKEND,
    BACKEND_REASON,
    COLUMNS,
    Batch,
    Filter,
    HardwareTimestamps,
    Interface,
    Receiver,
    Sender,
    SocketError,
    Stats,
    endSocket,
    genSocket,
    hardware_timestamps,
    incoming_cpu,
    incoming_napi_id,
    interfaces,
    join_group,
    leave_group,
    open_receiver,
    open_sender,
    read_errors,
    receive_capacity,
    set_busy_poll,
    set_error_queue,
    set_filter,
    set_hardware_timestamps,
    set_multicast_interface,
    set_multicast_loopback,
    set_multicast_ttl,
    set_receive_buffer,
)

__all__ = [
    "BACKEND",
    "BACKEND_REASON",
    "COLUMNS",
    "Batch",
    "Filter",
    "HardwareTimestamps",
    "Interface",
    "Receiver",
    "Sender",
    "SocketError",
    "Stats",
    "__version__",
    "endSocket",
    "genSocket",
    "hardware_timestamps",
    "incoming_cpu",
    "incoming_napi_id",
    "interfaces",
    "join_group",
    "leave_group",
    "open_receiver",
    "open_sender",
    "read_errors",
    "receive_capacity",
    "set_busy_poll",
    "set_error_queue",
    "set_filter",
    "set_hardware_timestamps",
    "set_multicast_interface",
    "set_multicast_loopback",
    "set_multicast_ttl",
    "set_receive_buffer",
    "skt",
    "socket",
]
