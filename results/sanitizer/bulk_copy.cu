// A correct pipeline of raw bulk copies, to learn what racecheck says of one.
//
// Warp 0 copies tiles into two buffers with cp.async.bulk; warp 1 waits for the bytes on an mbarrier, reads them, and hands
// the buffer back over a second mbarrier. PTX ISA, "Data Movement and Conversion Instructions: cp.async.bulk" and
// "mbarrier": the completion of the copy happens before a wait on that phase returns, so there is no race.
// The same kernel with -DRACE does not wait for the bytes: that is one.
//
//   nvcc -arch=sm_90a -lineinfo -o bulk_copy bulk_copy.cu && compute-sanitizer --tool racecheck ./bulk_copy
#include <cstdint>
#include <cstdio>

constexpr int TILE = 256, DEPTH = 2, TILES = 16;

__device__ uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

__device__ void initialise(uint64_t* barrier) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(barrier)) : "memory");
}

__device__ void wait(uint64_t* barrier, uint32_t phase) {
  asm volatile(
      "{\n .reg .pred done;\n"
      "AGAIN_%=:\n mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n @!done bra AGAIN_%=;\n}\n" ::"r"(
          shared_address(barrier)),
      "r"(phase)
      : "memory");
}

__device__ void arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}

__device__ void copy(float* to, const float* from, uint64_t* barrier) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(static_cast<uint32_t>(TILE * sizeof(float)))
               : "memory");
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   shared_address(to)),
               "l"(from), "r"(static_cast<uint32_t>(TILE * sizeof(float))), "r"(shared_address(barrier))
               : "memory");
}

__global__ void pipeline(const float* in, float* out, int tiles) {
  __shared__ alignas(128) float buffer[DEPTH][TILE];
  __shared__ uint64_t full[DEPTH], empty[DEPTH];
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    for (int i = 0; i < DEPTH; ++i) { initialise(&full[i]); initialise(&empty[i]); }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  float sum = 0;
  for (int tile = 0; tile < tiles; ++tile) {
    int slot = tile % DEPTH, round = tile / DEPTH;
    if (warp == 0 && lane == 0) {
      if (round > 0) wait(&empty[slot], (round - 1) & 1);
      copy(buffer[slot], in + tile * TILE, &full[slot]);
    }
    if (warp == 1) {
#ifndef RACE
      wait(&full[slot], round & 1);
#endif
      for (int i = lane; i < TILE; i += 32) sum += buffer[slot][i];
      __syncwarp();
      if (lane == 0) arrive(&empty[slot]);
    }
  }
  if (warp == 1) out[lane] = sum;
}

int main() {
  float *in, *out, host[TILE * TILES], sums[32], want = 0, got = 0;
  for (int i = 0; i < TILE * TILES; ++i) want += host[i] = static_cast<float>(i % 7);
  cudaMalloc(&in, sizeof host);
  cudaMalloc(&out, sizeof sums);
  cudaMemcpy(in, host, sizeof host, cudaMemcpyHostToDevice);
  pipeline<<<1, 64>>>(in, out, TILES);
  cudaError_t error = cudaMemcpy(sums, out, sizeof sums, cudaMemcpyDeviceToHost);
  for (float each : sums) got += each;
  printf("%s, sum %g, wanted %g\n", cudaGetErrorString(error), got, want);
  return error != cudaSuccess || got != want;
}
