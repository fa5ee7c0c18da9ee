"""What an answer depends on: elasticities, what-if, winner's maps, uncertainty, explanations.

One question a module: `parameters` names every figure that can change, `elasticity` says by how
much each moves the answer, `regime` which resource binds and where that ends, `whatif` and `sweep`
change figures and look again, `uncertainty` puts intervals on a ranking, `waterfall` and `versus`
tell why. `bestserve.api` is the front door.
"""
