"""Word-patch alignment."""

import torch

from vlc.objectives.wpa import cosine_costs, inner_words, iteration, transport_distance, transport_plan


def test_costs_plan_and_distance_are_the_published_ones(golden):
    case = torch.load(golden / "tiny/wpa.pt", weights_only=True)
    words, patches = ~case["txt_pad"], ~case["img_pad"]
    costs = cosine_costs(case["txt_emb"], case["img_emb"])
    torch.testing.assert_close(costs, case["cosine_cost"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(transport_plan(case["masked_cost"], words, patches), case["T"], atol=1e-5, rtol=1e-4)
    distance = transport_distance(case["txt_emb"], case["img_emb"], words, patches)
    torch.testing.assert_close(distance, case["distance"], atol=1e-5, rtol=1e-4)
    assert distance[3] == 0, "a text without words costs nothing"


def test_plan_moves_all_the_mass():
    torch.manual_seed(0)
    words, patches = torch.ones(2, 4, dtype=torch.bool), torch.ones(2, 6, dtype=torch.bool)
    words[0, 2:] = False
    plan = transport_plan(torch.rand(2, 4, 6), words, patches)
    torch.testing.assert_close(plan.sum((1, 2)), torch.ones(2), atol=1e-3, rtol=1e-3)
    assert not plan[0, :, 2:].any()


def test_compiled_iterations_give_the_same_plan():
    torch.manual_seed(0)
    words, patches = torch.ones(2, 4, dtype=torch.bool), torch.ones(2, 6, dtype=torch.bool)
    costs, compiled = torch.rand(2, 4, 6), torch.compile(iteration, dynamic=True, backend="aot_eager")
    plan = transport_plan(costs, words, patches, iterate=compiled)
    torch.testing.assert_close(plan, transport_plan(costs, words, patches))


def test_equal_vectors_cost_nothing():
    vector = torch.ones(1, 3, 8)
    everything = torch.ones(1, 3, dtype=torch.bool)
    assert transport_distance(vector, vector, everything, everything).abs() < 1e-6


def test_gradient_flows_through_the_costs_and_is_finite_without_words():
    text = torch.randn(2, 4, 8, requires_grad=True)
    words = torch.tensor([[True] * 4, [False] * 4])
    transport_distance(text, torch.randn(2, 5, 8), words, torch.ones(2, 5, dtype=torch.bool)).sum().backward()
    assert text.grad.isfinite().all()
    assert text.grad[0].any()
    assert not text.grad[1].any()


def test_inner_words_leave_out_first_last_and_padding():
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]])
    assert inner_words(mask).long().tolist() == [[0, 1, 1, 0, 0], [0, 0, 0, 0, 0]]
