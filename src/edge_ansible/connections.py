"""Connections to many hosts from one task, each as Ansible makes it for a task on that host.

Ansible has no public way to do so. This uses what its TaskExecutor does before it runs an action:
the same connection and become plugins, with the options of the host's variables.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.executor.process import worker
from ansible.executor.task_executor import TaskExecutor
from ansible.playbook.play_context import PlayContext
from ansible.plugins.action import ActionBase
from ansible.template import Templar

from edge_fleet.fleet_reader import Run, Unreachable

SHELL = "/bin/sh"


class Connections:
    """Makes connections for the task of an action."""

    def __init__(self, action: ActionBase) -> None:
        self._loaders, self._loader = action._shared_loader_obj, action._loader
        # The action itself belongs to the control machine.
        self._task = action._task.copy()
        self._task.delegate_to = None
        current = worker.current_worker
        # The play's own, with the passwords of the command line. The action's has those of a host.
        self._context = (
            PlayContext(play=self._task.play) if current is None else current._play_context
        )

    def connect(self, host: Any, variables: dict[str, Any]) -> Run:
        """Return what runs a command on a host, with the connection that a task on it would have.

        variables: of the host, for that task. No packet is sent before the first command. Raises
        AnsibleError for options that do not work.
        """
        task = self._task
        templar = Templar(loader=self._loader, variables=variables)
        context = self._context.set_task_and_variable_override(
            task=task, variables=variables, templar=templar
        )
        context.post_validate(templar=templar)
        if not context.remote_addr:
            context.remote_addr = host.address
        executor = TaskExecutor(
            host, task, variables, context, self._loader, self._loaders, None,
            task.get_variable_manager(),
        )  # fmt: skip
        named = variables.get("ansible_connection")
        kind = task.connection if named is None else templar.template(named)
        executor._connection = connection = executor._get_connection(variables, templar, kind)
        executor._set_connection_options(variables, templar)
        own = variables.copy()
        connection.update_vars(own)
        connection._play_context = context.set_task_and_variable_override(
            task=task, variables=own, templar=templar
        )
        on_host = self._loaders.action_loader.get(
            "ansible.legacy.normal",
            task=task,
            connection=connection,
            play_context=connection._play_context,
            loader=self._loader,
            templar=templar,
            shared_loader_obj=self._loaders,
        )
        return _runner(on_host, connection.has_pipelining)


def _runner(on_host: ActionBase, takes_input: bool) -> Callable[[str, bytes], tuple[int, str, str]]:
    def run(command: str, given: bytes) -> tuple[int, str, str]:
        if not takes_input:
            raise OSError("its connection passes no standard input on")
        try:
            result = on_host._low_level_execute_command(command, in_data=given, executable=SHELL)
        except AnsibleConnectionFailure as error:
            raise Unreachable(str(error)) from error
        return int(result["rc"]), str(result["stdout"]), str(result["stderr"])

    return run
