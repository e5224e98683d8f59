"""The types of the native backend: its twin's, which both have to keep to."""

from ._skt_py import VERSION as VERSION
from ._skt_py import Batch as Batch
from ._skt_py import Poller as Poller
from ._skt_py import Receiver as Receiver
from ._skt_py import Sender as Sender
from ._skt_py import batch_refusals as batch_refusals
from ._skt_py import block_source as block_source
from ._skt_py import bound_address as bound_address
from ._skt_py import follow_interface as follow_interface
from ._skt_py import get_source_filter as get_source_filter
from ._skt_py import join_group as join_group
from ._skt_py import leave_group as leave_group
from ._skt_py import limit_to_joined as limit_to_joined
from ._skt_py import notice as notice
from ._skt_py import set_multicast_interface as set_multicast_interface
from ._skt_py import set_multicast_loopback as set_multicast_loopback
from ._skt_py import set_multicast_ttl as set_multicast_ttl
from ._skt_py import set_receive_buffer as set_receive_buffer
from ._skt_py import set_source_filter as set_source_filter
from ._skt_py import unblock_source as unblock_source
