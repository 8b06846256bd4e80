"""Where each reading that breaks the model is played against the real code."""

from __future__ import annotations

HERE = "tests/model/test_readings_against_the_code.py"
OUTBOX, SERVER = "tests/strategy_proc/test_outbox.py", "tests/persistence_proc/test_server.py"
PLAYED = {
    "appends-behind-the-chain": f"{HERE}::test_a_change_behind_a_server_that_is_ahead_of_the_outbox_comes_back",
    "start-syncs-no-folder": f"{HERE}::test_a_sync_in_the_first_life_survives_every_power_cut",
    "begin-syncs-no-names": f"{HERE}::test_a_sync_in_the_first_life_survives_every_power_cut",
    "retires-what-is-applied": f"{HERE}::test_what_is_only_applied_stays_in_the_outbox",
    "spare-syncs-no-names": f"{HERE}::test_a_sync_in_a_spare_survives_every_power_cut",
    "fold-ignores-what-was-shipped": (
        "tests/strategy_proc/test_compaction.py::test_the_delete_of_a_key_that_may_have_been_seen_stays"
    ),
    "ships-without-a-mark": f"{HERE}::test_what_a_socket_gets_is_marked_before",
    "fold-syncs-no-names": f"{HERE}::test_a_power_cut_at_any_call_of_a_fold_loses_nothing_synced",
    "fold-is-not-synced": f"{HERE}::test_a_power_cut_at_any_call_of_a_fold_loses_nothing_synced",
    "sync-shares-no-lock": f"{HERE}::test_no_sync_gets_in_while_a_fold_replaces_files",
    "sync-trusts-names": (
        f"{OUTBOX}::test_what_stands_in_for_a_failed_sync_has_its_name_for_good_when_the_next_sync_returns"
    ),
    "syncs-the-same-file-again": f"{OUTBOX}::test_a_failed_sync_is_told_and_the_next_one_works_on_new_files",
    "recovery-syncs-nothing": (
        "tests/persistence_proc/test_recovery.py::test_the_journal_is_synced_before_anything_derived_from_it_is_written"
    ),
    "acknowledges-before-the-sync": f"{HERE}::test_nothing_is_durable_while_the_sync_has_not_returned",
    "saves-what-is-pending": f"{HERE}::test_a_map_with_something_pending_is_not_saved",
    "saves-ahead": f"{HERE}::test_a_map_with_something_pending_is_not_saved",
    "renames-before-the-batch-is-durable": (
        "tests/persistence_proc/test_pickle_file.py::test_nothing_is_renamed_before_the_journal_is_durable"
    ),
    "save-syncs-no-file": f"{HERE}::test_a_save_that_has_returned_survives_every_power_cut",
    "save-syncs-no-directory": f"{HERE}::test_a_save_that_has_returned_survives_every_power_cut",
    "retries-the-failed-sync": (
        "tests/persistence_proc/test_journal.py::test_after_a_failed_sync_the_journal_takes_nothing_more"
    ),
    "resends-only-on-a-gap": f"{HERE}::test_a_lost_last_message_is_shipped_again",
    "applies-over-a-gap": "tests/persistence_proc/test_namespaces.py::test_only_an_unbroken_run_is_applied",
    "skips-against-durable": (
        "tests/persistence_proc/test_namespaces.py::test_a_delete_behind_a_put_that_is_being_written_is_kept"
    ),
    "open-is-not-idempotent": f"{SERVER}::test_a_late_open_of_a_former_try_does_not_fence_the_live_session",
    "open-answered-at-once": f"{HERE}::test_an_open_waits_for_the_sync_of_its_epoch",
    "no-outbox-identity": f"{SERVER}::test_an_identity_that_comes_back_after_another_begins_anew",
    "fenced-reply-says-durable": f"{SERVER}::test_a_zombie_changes_nothing_and_is_told_without_a_word_of_durability",
    "any-epoch-is-taken": f"{SERVER}::test_a_zombie_changes_nothing_and_is_told_without_a_word_of_durability",
    "saves-only-what-changed": (
        "tests/persistence_proc/test_faults.py::test_the_journal_is_rotated_and_trimmed_and_idle_maps_do_not_hold_it"
    ),
    "catalog-without-namespaces": (
        "tests/persistence_proc/test_journal.py::test_a_catalog_says_the_same_as_the_commits_before_it"
    ),
    "catalog-without-maps": (
        "tests/persistence_proc/test_recovery.py::test_both_generations_of_an_idle_map_deleted_after_trim_are_refused"
    ),
    "trims-behind-the-current-generation": (
        "tests/persistence_proc/test_map_state.py::test_an_old_previous_generation_holds_the_frames_behind_it"
    ),
    "no-previous-generation": (
        "tests/persistence_proc/test_recovery.py::test_the_generation_before_stands_in_and_is_reported"
    ),
}
