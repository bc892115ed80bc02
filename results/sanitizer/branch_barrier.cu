// Warps that reach one named barrier from two branches, to learn what synccheck says of them.
//
// Two warps write numbers to shared memory, two read them; each pair has a loop of its own, with its own bar.sync of the same
// barrier. PTX ISA, "Parallel Synchronization and Communication Instructions: bar, barrier": bar.sync is
// barrier.sync.aligned, which asks that all threads of a warp execute the same instruction, and nothing of other warps.
// Each warp is uniform here, so the program is correct, and a hazard that synccheck reports is a misreading.
//
//   -DONE        both pairs share a loop, and with it each barrier instruction: the control, clean
//   -DUNALIGNED  barrier.sync, which asks nothing of a warp: correct too
//   -DPART       a fifth warp comes to no barrier: correct, for the barrier says how many threads it awaits
//   -DDIVERGENT  the threads of each warp part, odd from even: undefined with bar.sync, which synccheck must find
//
//   nvcc -arch=sm_90a -lineinfo -o branch_barrier branch_barrier.cu && compute-sanitizer --tool synccheck ./branch_barrier
#include <cstdio>

constexpr int HALF = 64, ROUNDS = 100;
#ifdef PART
constexpr int THREADS = 2 * HALF + 32;
#else
constexpr int THREADS = 2 * HALF;
#endif

__device__ __forceinline__ void meet() {
#ifdef UNALIGNED
  asm volatile("barrier.sync 1, 128;" ::: "memory");
#else
  asm volatile("bar.sync 1, 128;" ::: "memory");
#endif
}

__device__ int number(int round, int i) { return (round * 31 + i) % 101; }

__global__ void hand_over(int* sums) {
  __shared__ volatile int buffer[HALF];
#ifdef DIVERGENT
  bool writes = threadIdx.x % 2 == 0;
  int place = threadIdx.x / 2;
#else
  bool writes = threadIdx.x < HALF;
  int place = threadIdx.x % HALF;
#endif
  if (threadIdx.x >= 2 * HALF) return;
  int sum = 0;
#ifdef ONE
#pragma unroll 1
  for (int round = 0; round < ROUNDS; ++round) {
    if (writes) buffer[place] = number(round, place);
    meet();
    if (!writes) sum += buffer[HALF - 1 - place];
    meet();
  }
  if (!writes) sums[place] = sum;
#else
  if (writes) {
#pragma unroll 1
    for (int round = 0; round < ROUNDS; ++round) {
      buffer[place] = number(round, place);
      meet();
      meet();
    }
  } else {
#pragma unroll 1
    for (int round = 0; round < ROUNDS; ++round) {
      meet();
      sum += buffer[HALF - 1 - place];
      meet();
    }
    sums[place] = sum;
  }
#endif
}

int main() {
  int *device, sums[HALF], got = 0, want = 0;
  for (int round = 0; round < ROUNDS; ++round)
    for (int i = 0; i < HALF; ++i) want += (round * 31 + i) % 101;
  cudaMalloc(&device, sizeof sums);
  hand_over<<<1, THREADS>>>(device);
  cudaError_t error = cudaMemcpy(sums, device, sizeof sums, cudaMemcpyDeviceToHost);
  for (int each : sums) got += each;
  printf("%s, sum %d, wanted %d\n", cudaGetErrorString(error), got, want);
  return error != cudaSuccess || got != want;
}
