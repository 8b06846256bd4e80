"""Keeps the processes running: starts them in order, restarts each on its own, stops them in the right order.

    from supervisor.config import load_config
    from supervisor.loop import Supervisor

    exit_code = Supervisor(load_config("outlive.toml")).run()     # from the main thread

`config` is what the user writes, `programs` turns it into what to start; `lifecycle` and `restart_policy` decide,
`child` holds one process, `loop` waits for all of them, `control` answers the command line (`commands`).
"""
