.PHONY: all test lint type perf docs
all: test lint type
test: ; tox -e py
lint: ; tox -e lint
type: ; tox -e type
perf: ; tox -e perf
docs: ; tox -e docs
