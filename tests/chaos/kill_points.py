"""Where a process may kill itself: a table of places in the product, which knows nothing of it.

A point is before or after a function, or before or after the n-th call of one method of `Disk` while that function
runs. `injection` wraps them in a process whose environment names them. The odds are those at which a process under
test usually lives long enough to have done something, and not much longer.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

HOT, WARM, RARE = 0.003, 0.1, 1.0  # reached thousands of times in a life, some dozen times, or a few times at most


class Point(NamedTuple):
    """See the module. `any_thread`: the disk call may come from another thread while the function runs."""

    module: str
    function: str
    when: Literal["before", "after"]
    call: str = ""
    nth: int = 1
    odds: float = RARE
    any_thread: bool = False


_JOURNAL, _FILE, _RECOVERY = "persistence_proc.journal", "persistence_proc.pickle_file", "persistence_proc.recovery"
_SERVER, _SERVICE, _REQUESTS = "persistence_proc.server", "persistence_proc.service", "persistence_proc.requests"
_OUTBOX, _CHAIN, _SEGMENT = "strategy_proc.outbox", "strategy_proc.outbox_chain", "strategy_proc.outbox_segment"
_LOOP, _SPARE = "supervisor.loop", "supervisor.spare"

PERSISTENCE: dict[str, Point] = {
    "journal.before_append": Point(_JOURNAL, "Journal.append", "before", odds=WARM),
    "journal.after_append": Point(_JOURNAL, "Journal.append", "after", odds=WARM),
    "journal.before_fdatasync": Point(_JOURNAL, "Journal.sync", "before", "fdatasync", odds=WARM),
    "journal.after_fdatasync": Point(_JOURNAL, "Journal.sync", "after", "fdatasync", odds=WARM),
    "acknowledge.before": Point(_SERVICE, "Service._written", "before", odds=WARM),
    "acknowledge.noted": Point(_SERVICE, "Service._written", "after", odds=WARM),
    "acknowledge.before_reply": Point(_REQUESTS, "Requests._confirmed", "before", odds=WARM),
    "rotation.before": Point(_JOURNAL, "Journal.rotate", "before"),
    "rotation.spare_taken": Point(_JOURNAL, "Journal.rotate", "after", "open"),
    "rotation.catalog_written": Point(_JOURNAL, "Journal.rotate", "after", "pwrite"),
    "rotation.catalog_synced": Point(_JOURNAL, "Journal.rotate", "after", "fsync"),
    "rotation.named": Point(_JOURNAL, "Journal.rotate", "before", "fsync_dir"),
    "rotation.after": Point(_JOURNAL, "Journal.rotate", "after"),
    "spare.made": Point(_JOURNAL, "Journal.prepare_spare", "after", "open"),
    "spare.filled": Point(_JOURNAL, "Journal.prepare_spare", "after", "zero_fill"),
    "spare.ready": Point(_JOURNAL, "Journal.prepare_spare", "after"),
    "trim.before": Point(_JOURNAL, "Journal.delete_before", "before", "unlink"),
    "trim.unlinked": Point(_JOURNAL, "Journal.delete_before", "after", "unlink"),
    "trim.dir_synced": Point(_JOURNAL, "Journal.delete_before", "after", "fsync_dir"),
    "checkpoint.temp_made": Point(_FILE, "_write", "after", "open", odds=WARM),
    "checkpoint.temp_written": Point(_FILE, "_write", "before", "fsync", odds=WARM),
    "checkpoint.temp_synced": Point(_FILE, "_write", "after", "fsync", odds=WARM),
    "checkpoint.previous_linked": Point(_FILE, "keep_previous", "after", "link_or_copy", odds=WARM),
    "checkpoint.previous_replaced": Point(_FILE, "keep_previous", "after", "replace", odds=WARM),
    "checkpoint.replaced": Point(_FILE, "save_map", "before", "fsync_dir", odds=WARM),
    "checkpoint.dir_synced": Point(_FILE, "save_map", "after", "fsync_dir", odds=WARM),
    "recovery.read": Point(_RECOVERY, "_Recovery._sync_journal", "before"),
    "recovery.first_synced": Point(_RECOVERY, "_Recovery._sync_journal", "after", "sync_file"),
    "recovery.newest_copied": Point(_RECOVERY, "_Recovery._sync_journal", "before", "replace"),
    "recovery.newest_replaced": Point(_RECOVERY, "_Recovery._sync_journal", "after", "replace"),
    "recovery.after_sync": Point(_RECOVERY, "_Recovery._sync_journal", "after"),
    "recovery.files_synced": Point(_RECOVERY, "_Recovery._sync_files", "after"),
    "recovery.replayed": Point(_RECOVERY, "_Recovery._replay", "after"),
    "recovery.temporaries_cleared": Point(_RECOVERY, "_Recovery._clear_temporaries", "after", "unlink"),
    "recovery.quarantine_written": Point(
        "persistence_proc.quarantine", "Quarantine.keep_journal_damage", "before", "replace"
    ),
    "recovery.quarantine_synced": Point(
        "persistence_proc.quarantine", "Quarantine.keep_journal_damage", "after", "fsync_dir"
    ),
    "recovery.before_save": Point(_RECOVERY, "_Recovery._save_one", "before"),
    "recovery.after_save": Point(_RECOVERY, "_Recovery._save_one", "after"),
    "recovery.all_saved": Point(_RECOVERY, "_Recovery._save", "after"),
    "recovery.temporary_segment_removed": Point(_JOURNAL, "Journal.start", "after", "unlink"),
    "recovery.segment_written": Point(_JOURNAL, "Journal.start", "after", "pwrite"),
    "recovery.segment_synced": Point(_JOURNAL, "Journal.start", "before", "replace"),
    "recovery.segment_named": Point(_JOURNAL, "Journal.start", "after", "replace"),
    "recovery.after_segment": Point(_RECOVERY, "_Recovery._begin_segment", "after"),
    "recovery.store_not_yet": Point(_RECOVERY, "_new_store", "before", "replace_file"),
    "recovery.store_written": Point(_RECOVERY, "_new_store", "after", "write_file"),
    "recovery.store_renamed": Point(_RECOVERY, "_new_store", "after", "replace_file"),
    "recovery.store_again": Point("persistence_proc.paths", "encode_store", "before"),
    "open.before": Point("persistence_proc.namespaces", "Namespace.open", "before"),
    "open.epoch_bumped": Point("persistence_proc.namespaces", "Namespace.open", "after"),
    "open.before_reply": Point(_REQUESTS, "Requests._opened", "before"),
    "shutdown.asked": Point(_SERVER, "Server._stop", "before"),
    "shutdown.final_save": Point(_SERVER, "Server._stop", "before", "fsync", any_thread=True),
    "shutdown.final_replace": Point(_SERVER, "Server._stop", "after", "replace", any_thread=True),
    "shutdown.saved": Point(_SERVER, "Server._stop", "after"),
    "shutdown.threads_ended": Point(_SERVICE, "Service.stop", "after"),
    "endpoint.before": Point(_SERVER, "Server._write_endpoint", "before"),
    "endpoint.temp_written": Point(_SERVER, "Server._write_endpoint", "before", "replace"),
    "endpoint.after": Point(_SERVER, "Server._write_endpoint", "after"),
}

WORKER: dict[str, Point] = {
    "outbox.before_append": Point(_OUTBOX, "Outbox.append", "before", odds=HOT),
    "outbox.after_append": Point(_OUTBOX, "Outbox.append", "after", odds=HOT),
    "outbox.before_roll": Point(_OUTBOX, "Outbox._make_room", "before"),
    "outbox.after_roll": Point(_OUTBOX, "Outbox._make_room", "after"),
    "outbox.own_segment": Point(_OUTBOX, "Outbox._make", "after"),
    "outbox.before_shipping": Point(_OUTBOX, "Outbox.mark_shipped", "before", odds=WARM),
    "outbox.after_shipping": Point(_OUTBOX, "Outbox.mark_shipped", "after", odds=WARM),
    "outbox.acknowledged": Point(_OUTBOX, "Outbox.mark_acked", "after", odds=WARM),
    "segment.allocated": Point(_SEGMENT, "OutboxFolder.create", "after", "preallocate"),
    "segment.filled": Point(_SEGMENT, "OutboxFolder.create", "after", "zero_fill"),
    "segment.synced": Point(_SEGMENT, "OutboxFolder.create", "after", "fsync"),
    "segment.before_name": Point(_SEGMENT, "OutboxFolder.name", "before"),
    "segment.named": Point(_SEGMENT, "OutboxFolder.name", "after"),
    "segment.spare_ready": Point(_CHAIN, "SegmentChain._prepare_spare", "after", "fsync_dir"),
    "recycle.before": Point(_SEGMENT, "OutboxFolder.retire", "before"),
    "recycle.number_gone": Point(_SEGMENT, "OutboxFolder.retire", "after", "replace"),
    "recycle.head_rewritten": Point(_SEGMENT, "OutboxFolder.spare", "before", "sync_map"),
    "recycle.reused": Point(_SEGMENT, "OutboxFolder.spare", "after", "sync_map"),
    "compaction.begun": Point("strategy_proc.compaction", "fold_records", "before"),
    "compaction.folded": Point("strategy_proc.compaction", "fold_records", "after"),
    "compaction.before_replace": Point(_SEGMENT, "OutboxFolder.put_over", "before"),
    "compaction.after_replace": Point(_SEGMENT, "OutboxFolder.put_over", "after"),
    "compaction.name_synced": Point(_CHAIN, "SegmentChain._remove_obsolete", "after", "fsync_dir"),
    "compaction.first_removed": Point(_CHAIN, "SegmentChain._remove_obsolete", "after", "unlink"),
    "sync.before": Point(_CHAIN, "SegmentChain._sync_one", "before"),
    "sync.after": Point(_CHAIN, "SegmentChain._sync_one", "after"),
    "sync.marked": Point(_CHAIN, "SegmentChain._sync_segments", "after"),
    "connect.identity_written": Point(_OUTBOX, "Outbox._write_identity", "before", "replace"),
    "connect.loaded": Point(_OUTBOX, "Outbox.load", "after"),
    "connect.reply_received": Point("strategy_proc.connecting", "_Connecting._leftovers", "before"),
    "connect.leftovers_copied": Point(_OUTBOX, "Outbox.begin", "after", "fsync", nth=2),
    "connect.first_segment_named": Point(_OUTBOX, "Outbox.begin", "before", "unlink"),
    "connect.first_old_removed": Point(_OUTBOX, "Outbox.begin", "after", "unlink"),
    "connect.begun": Point(_OUTBOX, "Outbox.begin", "after"),
    "close.asked": Point("strategy_proc.session", "Session._say_good_bye", "before"),
    "close.said_good_bye": Point("strategy_proc.session", "Session._say_good_bye", "after"),
    "close.pump_stopped": Point(_OUTBOX, "Outbox.close", "before"),
    "close.unmapped": Point("strategy_proc.outbox_lock", "OutboxLock.release", "before"),
}

SUPERVISOR: dict[str, Point] = {
    "supervisor.prepared": Point(_LOOP, "Supervisor._prepare", "after"),
    "supervisor.before_start": Point("supervisor.child", "spawn", "before", odds=0.2),
    "supervisor.after_start": Point("supervisor.child", "spawn", "after", odds=0.2),
    "supervisor.death_noticed": Point(_LOOP, "Supervisor._ended", "before", odds=0.3),
    "supervisor.death_handled": Point(_LOOP, "Supervisor._ended", "after", odds=0.3),
    "spare.started": Point(_SPARE, "Spare._start", "after", odds=0.2),
    "spare.before_word": Point(_SPARE, "Spare.take", "before", odds=0.3),
    "spare.after_word": Point(_SPARE, "Spare.take", "after", odds=0.3),
    "reload.before": Point("supervisor.reload", "take_over", "before"),
    "reload.after": Point("supervisor.reload", "take_over", "after"),
    "stop.asked": Point(_LOOP, "Supervisor.stop", "after"),
    "stop.next": Point(_LOOP, "Supervisor._stop_next", "after", odds=0.3),
}

HEAVY = ("rotation", "compaction", "outbox.own")
"""Beginnings of those that only bots with large values lead to, and not at once."""

POINTS: dict[str, Point] = {**PERSISTENCE, **WORKER, **SUPERVISOR}
