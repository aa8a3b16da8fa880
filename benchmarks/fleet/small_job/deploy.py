"""The small job that pyinfra is measured with: the same as playbook.yml."""

from pathlib import Path

from pyinfra.operations import apt, files, server, systemd

HERE = Path(__file__).resolve().parent
TARGET = "/srv/fleet-bench"

files.directory(name="Make the folder", path=TARGET, mode="755")
for each in ("one.txt", "two.txt", "three.txt"):
    files.put(
        name=f"Write {each}", src=str(HERE / "files" / each), dest=f"{TARGET}/{each}", mode="644"
    )
files.template(
    name="Write the file of a template",
    src=str(HERE / "templates/settings.j2"),
    dest=f"{TARGET}/settings",
    mode="644",
    listen="127.0.0.1",
)
apt.packages(name="Install the package", packages=["ca-certificates"])
server.user(name="Add the user", user="fleet-bench", system=True, home=TARGET, create_home=False)
files.line(name="Add the line", path="/etc/profile", line="# fleet-bench")
systemd.service(name="Start the service", service="ssh", running=True, enabled=True)
