from transfer_jax.distributed.agreement import FlagAgreement


def test_one_process_agrees_with_itself():
    flags = {"stop": False, "save": True}
    agreement = FlagAgreement(lambda: flags)
    assert agreement.agreed == {}
    agreement.send()
    assert agreement.receive() == agreement.agreed == {"stop": False, "save": True}
    agreement.send()
    flags["stop"] = True
    assert agreement.receive() == {"stop": True, "save": True}


def test_several_processes_receive_the_flags_of_each_step(monkeypatch):
    """Two processes in the view of one: the all-reduce over this process's devices stands for all."""
    monkeypatch.setattr("transfer_jax.distributed.processes.count", lambda: 2)
    flags = {"stop": False, "save": False}
    agreement = FlagAgreement(lambda: flags)
    agreement.send()
    flags["stop"] = True
    agreement.send()
    flags["stop"] = False
    assert agreement.receive() == {"stop": False, "save": False}
    assert agreement.receive() == agreement.agreed == {"stop": True, "save": False}
