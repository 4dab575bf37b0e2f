# The cluster tests: tools from Go modules, a control plane, a node, images.
.PHONY: image-tag image-names tools cluster-up cluster-down cluster-shell images test-node test-node-v2 e2e e2e-cluster e2e-beside test-chaos-cluster chaos-cluster comparison soak

TOOLS ?=
NODES ?= 1
IMAGES ?=
TAG ?=

tools: ## Build the tools of the cluster tests into ~/.cache/sn17-tools (TOOLS="kubernetes etcd" for some)
	@$(PYTHON) dev/tools/build.py $(TOOLS)

cluster-up: sync ## Start a real Kubernetes on this machine that stays up (NODES=n; needs root and make tools)
	@.venv/bin/python -m sn17_cluster up --nodes $(NODES)

cluster-down: sync ## End it, and clear what killed runs have left
	@.venv/bin/python -m sn17_cluster down

cluster-shell: sync ## A shell with kubectl and helm in its network, where pods and services are reachable
	@.venv/bin/python -m sn17_cluster shell

images: ## Build the container images with docker or buildah (IMAGES="operator trellis-torch" for some, TAG=tag)
	@$(PYTHON) dev/tools/images.py --tag "$(TAG)" $(IMAGES)

image-tag: ## Print the tag that make images gives: the commit, or the version where HEAD is a release
	@$(PYTHON) dev/tools/release.py tag

image-names: ## Print the names of the images that make images builds
	@$(PYTHON) dev/tools/images.py --tag "$(TAG)" --name $(IMAGES)

test-node: sync tools ## The tests of the node itself, two nodes included, and of the guest kernel (needs root and Go)
	@SN17_REQUIRE_CLUSTER=1 .venv/bin/python -m pytest -m "node and not slow" dev/cluster dev/uml

test-node-v2: sync tools ## A whole node in a kernel with cgroup v2: worker and OOM killer in containers (minutes; needs root and Go)
	@SN17_REQUIRE_CLUSTER=1 .venv/bin/python -m pytest -m "node and slow" dev/uml

e2e: sync tools ## Everything on a real cluster: install, four arms of a leak, recycles, uninstall; 20 faults, a short soak (needs root and Go)
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=line e2e-cluster e2e-beside

# What shares a cluster, and what needs none, side by side.
e2e-cluster:
	@SN17_REQUIRE_CLUSTER=1 .venv/bin/python -m pytest -o "norecursedirs=.*" tests/e2e \
		--ignore=tests/e2e/test_cgroup_v2.py --durations=0
e2e-beside:
	@SN17_REQUIRE_CLUSTER=1 SN17_SOAK_SECONDS=240 .venv/bin/python -m pytest -o "norecursedirs=.*" -n 3 \
		tests/e2e/test_cgroup_v2.py tests/chaos/fast/test_chaos_plane.py tests/stack/test_soak.py --durations=0

HOURS ?= 1.2
MINUTES ?= 10

test-chaos-cluster: sync tools ## The most telling faults on a real cluster, and what each pod may do and read (needs root and Go)
	@SN17_REQUIRE_CLUSTER=1 .venv/bin/python -m pytest -o "norecursedirs=.*" tests/chaos/cluster --durations=0

comparison: sync tools ## The same leaks under all ways to live with them on a real cluster, MINUTES=n (needs root and Go)
	@.venv/bin/python -m sn17_bench.comparison --minutes $(MINUTES)

chaos-cluster: sync tools ## Break a real cluster for some minutes (MINUTES=n; needs root and Go)
	@.venv/bin/python -m sn17_bench.chaos --tier cluster --minutes $(MINUTES)

soak: sync tools ## The stack on a real node for HOURS=n at twentyfold speed: nothing may grow (needs root and Go)
	@.venv/bin/python -m sn17_bench.soak --hours $(HOURS)
