"""The policy graph of RFC 9618 gives what the tree of RFC 5280 §6.1 gives, for every small path: the tree is written out here, slowly."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mailsec.pki.policies import PolicyGraph
from mailsec.x509.extensions import ANY_POLICY as ANY

POLICIES = ["1.1", "1.2", "1.3"]


class Tree:
    """valid_policy_tree: nodes are (path of policies from the root, expected set); RFC 5280 §6.1.2 (a), §6.1.3 (d), §6.1.4 (b), §6.1.5 (g)."""

    def __init__(self) -> None:
        self.levels = [[((ANY,), {ANY})]]

    def process(self, policies, any_allowed) -> None:
        if not self.levels:
            return
        if policies is None:
            self.levels = []
            return
        above, level = self.levels[-1], []
        for policy in policies:
            if policy == ANY:
                continue
            parents = [node for node in above if policy in node[1]] or [node for node in above if node[0][-1] == ANY]
            level += [((*parent[0], policy), {policy}) for parent in parents]
        if ANY in policies and any_allowed:
            for parent in above:
                for expected in parent[1]:
                    if not any(node[0][:-1] == parent[0] and node[0][-1] == expected for node in level):
                        level.append(((*parent[0], expected), {expected}))
        self.levels.append(level)
        self.prune()

    def map(self, mappings, allowed) -> None:
        if not self.levels:
            return
        level = self.levels[-1]
        for policy in dict(mappings):
            targets = {subject for issuer, subject in mappings if issuer == policy}
            if not allowed:
                level[:] = [node for node in level if node[0][-1] != policy]
            elif any(node[0][-1] == policy for node in level):
                level[:] = [(node[0], targets if node[0][-1] == policy else node[1]) for node in level]
            else:
                level += [((*node[0][:-1], policy), targets) for node in level if node[0][-1] == ANY]
        self.prune()

    def prune(self) -> None:
        for index in range(len(self.levels) - 1, 0, -1):
            needed = {node[0][:-1] for node in self.levels[index]}
            self.levels[index - 1] = [node for node in self.levels[index - 1] if node[0] in needed]
        if not self.levels[-1]:
            self.levels = []

    def constrained(self, wanted) -> frozenset:
        if not self.levels:
            return frozenset()
        found = {path[-1] for level in self.levels[1:] for path, _ in level if path[-2] == ANY and path[-1] != ANY}
        if any(path[-1] == ANY for path, _ in self.levels[-1]):
            found.add(ANY)
        if ANY in wanted:
            return frozenset(found)
        return wanted if ANY in found else frozenset(found & wanted)


certificates = st.tuples(
    st.none() | st.lists(st.sampled_from([*POLICIES, ANY]), min_size=1, max_size=4, unique=True).map(tuple),
    st.booleans(),
    st.lists(st.tuples(st.sampled_from(POLICIES), st.sampled_from(POLICIES)), max_size=3).map(tuple),
    st.booleans(),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(certificates, min_size=1, max_size=4), st.sets(st.sampled_from([*POLICIES, ANY]), min_size=1))
def test_the_graph_is_the_tree(path, wanted):
    graph, tree = PolicyGraph(), Tree()
    for policies, any_allowed, mappings, allowed in path:
        graph.process(policies, any_allowed=any_allowed)
        tree.process(policies, any_allowed)
        if mappings:
            graph.map(mappings, allowed=allowed)
            tree.map(mappings, allowed)
    assert bool(graph) is bool(tree.levels)
    assert graph.constrained(frozenset(wanted)) == tree.constrained(frozenset(wanted))
