from sn17_protocol import ChainSnapshot, Neuron


def neuron(uid, **changes):
    return Neuron(**({"uid": uid, "hotkey": f"k{uid}"} | changes))


def snapshot(*neurons):
    return ChainSnapshot(netuid=17, block=1, taken_at=0.0, neurons=neurons)


def test_the_json_of_the_contract_is_read():
    text = (
        '{"netuid":17,"block":5,"taken_at":1.5,"burn_price":0.1,"later_field":1,"neurons":[{"uid":0,"hotkey":"k",'
        '"ip":"1.2.3.4","port":8091,"serving":true,"stake":2000.5,"emission":0.1,"incentive":0.2,'
        '"registered_at_block":1,"immune_blocks_left":0}]}'
    )
    read = ChainSnapshot.model_validate_json(text)
    assert read.neurons[0].address == "1.2.3.4:8091"
    assert ChainSnapshot.model_validate_json(read.model_dump_json()) == read


def test_validators_serve_and_have_stake():
    read = snapshot(
        neuron(0, serving=True, stake=1000), neuron(1, serving=True, stake=999), neuron(2, stake=5000)
    )
    assert [n.uid for n in read.validators()] == [0]
    assert [n.uid for n in read.validators(min_stake=0)] == [0, 1]


def test_prune_order_is_immunity_then_emission_then_age_then_uid():
    read = snapshot(
        neuron(0, emission=0.0, immune_blocks_left=10),
        neuron(1, emission=2.0),
        neuron(2, emission=1.0, registered_at_block=9),
        neuron(3, emission=1.0, registered_at_block=8),
        neuron(4, emission=1.0, registered_at_block=8),
    )
    assert [read.prune_position(f"k{uid}") for uid in (3, 4, 2, 1, 0)] == [0, 1, 2, 3, 4]
    assert read.prune_position("stranger") is None


def test_an_ipv6_address_is_bracketed():
    assert neuron(0, ip="::1", port=1).address == "[::1]:1"
