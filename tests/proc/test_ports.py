"""Ports: free, below the ephemeral range, and never the same twice while a claim is held."""

from __future__ import annotations

import os
import socket

import pytest

from chaos.proc.ports import (
    BLOCK_SIZE,
    NoFreePorts,
    claim_ports,
    ephemeral_low,
    is_free,
    port_holder,
    worker_index,
)


def test_claims_do_not_overlap_while_they_are_held() -> None:
    with claim_ports(3) as first, claim_ports(BLOCK_SIZE + 1) as second:
        assert len(first.ports) == 3
        assert len(second.ports) == BLOCK_SIZE + 1
        assert not set(first.ports) & set(second.ports)
        assert max(second.ports) < ephemeral_low()


def test_a_port_in_use_or_to_be_avoided_moves_the_claim() -> None:
    with claim_ports(2) as claim:
        ports = claim.ports
    with socket.create_server(("127.0.0.1", ports[1])), claim_ports(2) as other:
        assert not is_free(ports[1])
        assert port_holder(ports[1]).startswith(f"pid {os.getpid()} (")
        assert not set(other.ports) & set(ports)
    with claim_ports(2, avoid={ports[0]}, first_port=ports[0]) as third:
        assert not set(third.ports) & set(ports)


def test_a_claim_near_the_ephemeral_range_goes_on_below() -> None:
    last_block = ephemeral_low() - BLOCK_SIZE
    with claim_ports(2 * BLOCK_SIZE, first_port=last_block) as claim:
        assert max(claim.ports) < ephemeral_low()
        assert min(claim.ports) < last_block


def test_too_many_ports_are_refused_and_nothing_stays_locked() -> None:
    with pytest.raises(NoFreePorts, match="no 1000000 free ports"):
        claim_ports(1_000_000)
    with claim_ports(1) as claim:
        assert claim.ports


def test_workers_of_a_parallel_test_run_start_apart() -> None:
    assert [worker_index(name) for name in (None, "gw0", "gw7", "master")] == [0, 0, 7, 0]
